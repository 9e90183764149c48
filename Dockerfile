# The worker's image. It is linted (hadolint), and tests/deploy runs its steps outside of Docker. There was no Docker
# engine, so the image as a whole was never built.
#
#   docker build --tag worker-chart-export:0.2.0 .
#   docker run worker-chart-export:0.2.0 --help
#
# A tag may move. For a build that can be repeated, name the base by its digest
# (`docker buildx imagetools inspect python:3.13-slim-bookworm` prints it):
#
#   docker build --build-arg BASE=python:3.13-slim-bookworm@sha256:... --tag worker-chart-export:0.2.0 .
ARG BASE=python:3.13-slim-bookworm

# Both stages have the same base, because a venv holds the path of its interpreter.
FROM ${BASE} AS build
WORKDIR /src
# pip and what builds the wheel stay outside of the venv.
COPY requirements.lock requirements-build.lock ./
RUN pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements-build.lock \
    && python -m venv --without-pip /opt/worker
RUN pip --python /opt/worker/bin/python install --no-cache-dir --no-compile --require-hashes --only-binary :all: -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY worker_chart_export worker_chart_export
COPY daemon daemon
COPY localcloud localcloud
# The root file system is read-only later, so bytecode is made here. "unchecked", because the times of files may
# change on their way into the image.
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
    && pip --python /opt/worker/bin/python install --no-cache-dir --no-compile --no-deps /wheels/*.whl \
    && python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/worker/lib

FROM ${BASE}
# The official image ships the standard library without bytecode, which each start would then compile anew.
RUN python -m pip uninstall --yes pip \
    && python -m compileall -q -j 0 --invalidation-mode unchecked-hash /usr/local/lib/python3.13
COPY --from=build /opt/worker /opt/worker
ENV PATH=/opt/worker/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONFAULTHANDLER=1 \
    PYTHONUNBUFFERED=1
WORKDIR /tmp
# A number, because Kubernetes' runAsNonRoot can't look up a name.
USER 65532:65532
STOPSIGNAL SIGTERM
# For Docker and Compose; Kubernetes has probes of its own. Silence within the start period does not count.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 CMD ["worker-chart-export", "healthcheck"]
ENTRYPOINT ["worker-chart-export"]
CMD ["daemon"]
