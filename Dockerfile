# Neither built nor run by the tests of this repository: they have no Docker engine.
FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /opt/worker
COPY requirements.lock ./
RUN /opt/worker/bin/pip install --no-cache-dir --only-binary :all: -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY worker_chart_export worker_chart_export
COPY daemon daemon
COPY localcloud localcloud
RUN /opt/worker/bin/pip install --no-cache-dir --no-deps .

FROM python:3.13-slim
COPY --from=build /opt/worker /opt/worker
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PATH=/opt/worker/bin:$PATH
USER 65532:65532
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "daemon"]
