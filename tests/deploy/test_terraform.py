"""The Terraform module from the user's side: needs, layout, variables, names, outputs.

No provider is available here: these tests parse the resources and plan only the variables. The README of the
module describes the manual tests.
"""

from __future__ import annotations

import re
import shutil
import subprocess

import hcl2
import pytest
import yaml

from daemon.settings import Settings
from tests.support.deploy.hcl_layout import layout_faults
from tests.support.deploy.hcl_module import Module
from tests.support.process.daemons import ROOT

FOLDER = ROOT / "deploy" / "terraform"
FILES = sorted(FOLDER.glob("*.tf"))
MODULE = Module(FOLDER)
CASES = (ROOT / "tests" / "deploy" / "variables.tftest.hcl").read_text(encoding="utf-8")
README = (FOLDER / "README.md").read_text(encoding="utf-8")
#: Prefix of a resource type -> the service that it calls, and the role that `terraform apply` needs.
NEEDS = {
    "google_pubsub_": ("pubsub", "roles/pubsub.admin"),
    "google_storage_": ("storage", "roles/storage.admin"),
    "google_firestore_": ("firestore", "roles/datastore.indexAdmin"),
    "google_project_iam_": ("cloudresourcemanager", "roles/resourcemanager.projectIamAdmin"),
    "google_service_account": ("iam", "roles/iam.serviceAccountAdmin"),
}


@pytest.fixture(scope="module")
def terraform(tmp_path_factory):
    """Run Terraform where it is installed; the project does not install it."""
    program = shutil.which("terraform")
    if program is None:
        pytest.skip("terraform is not installed; the layout and the values are tested without it")
    home = tmp_path_factory.mktemp("home")
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "CHECKPOINT_DISABLE": "1"}

    def run(folder, *arguments, given=""):
        return subprocess.run(
            [program, f"-chdir={folder}", *arguments],
            env=environment,
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


class TestNeeds:
    """The requirements before the first plan, as the README describes them."""

    REQUIREMENTS = README.partition("You need:")[2].partition("```")[0]

    def test_each_service_and_each_right_is_documented(self):
        """The README names the service and the role for each resource type of the module, and no others."""
        kinds = {kind for kind, _ in MODULE.resources}
        needed = {next(need for start, need in NEEDS.items() if kind.startswith(start)) for kind in kinds}
        services = re.findall(r"`(\w+)\.googleapis\.com`", self.REQUIREMENTS)
        assert sorted(services) == sorted(service for service, _ in needed)
        assert sorted(re.findall(r"^\| `(roles/[\w.]+)`", self.REQUIREMENTS, re.MULTILINE)) == sorted(
            role for _, role in needed
        )
        assert "`resourcemanager.projects.setIamPolicy`" in self.REQUIREMENTS

    def test_the_readme_says_how_to_create_the_pubsub_agent(self):
        """The README says how to create Pub/Sub's service agent, without which IAM refuses the grants."""
        assert "gcp-sa-pubsub" in MODULE.local_values["pubsub_agent"]
        assert "gcloud beta services identity create --service=pubsub.googleapis.com" in self.REQUIREMENTS

    def test_the_readme_warns_of_variables_that_replace_messages(self):
        """The README warns about each variable that names a topic or subscription: a change replaces it."""
        warned = README.partition("## What it leaves alone")[2]
        for kind in ("google_pubsub_topic", "google_pubsub_subscription"):
            for made in MODULE.all_of(kind).values():
                name = made["name"].removeprefix("${var.").removesuffix("}")
                assert f"`{name}`" in warned


class TestLayout:
    """The files have the layout of `terraform fmt`."""

    @pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
    def test_a_file_parses_and_is_laid_out(self, file):
        """Each file parses and has the right layout, also without Terraform."""
        text = file.read_text(encoding="utf-8")
        assert hcl2.loads(text)
        assert layout_faults(text) == []

    @pytest.mark.parametrize(
        "wrong",
        [
            'a = 1\nlonger = "two"\n',
            "a {\n   b = 1\n}\n",
            "a {\nb = 1\n}\n",
            "a = [\n  1,\n  ]\n",
            "a  = 1\n",
            "a =  1\n",
            "a = 1 \n",
            "a = {\n\tb = 1\n}\n",
        ],
    )
    def test_a_wrong_layout_is_found(self, wrong):
        """The layout check finds wrong signs, indentation and spaces."""
        assert layout_faults(wrong)

    def test_terraform_fmt_changes_nothing(self, terraform):
        """`terraform fmt` changes nothing."""
        done = terraform(FOLDER, "fmt", "-check", "-diff", "-recursive")
        assert (done.returncode, done.stdout) == (0, "")

    def test_terraform_agrees_about_what_is_wrong(self, terraform, tmp_path):
        """`terraform fmt` changes the wrong example of the layout check."""
        (tmp_path / "bad.tf").write_text('a = 1\nlonger = "two"\n', encoding="utf-8")
        assert terraform(tmp_path, "fmt", "-check").returncode == 3


class TestVariablesAndOutputs:
    """The variables and outputs that users of the module see."""

    def test_every_variable_is_described_typed_and_used(self):
        """Every variable has a description and a type, is used, and is in the README with its default."""
        text = "".join(file.read_text(encoding="utf-8") for file in FILES)
        for name, variable in MODULE.variables.items():
            assert len(variable["description"]) > 20
            assert variable["type"]
            assert len(re.findall(rf"\bvar\.{name}\b", text)) > bool(variable.get("validation"))
            assert f"| `{name}` |" in README

    def test_names_are_those_of_the_documents(self):
        """The names equal those of docs/operations.md and of the settings for GKE."""
        commands = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
        names = {
            name: MODULE.variables[name]["default"]
            for name in ("topic", "subscription", "quarantine_topic", "dead_letter_topic")
        }
        assert (
            "pubsub topics create {topic} {quarantine_topic} {dead_letter_topic}".format(**names) in commands
        )
        assert "subscriptions create {subscription} --topic={topic} ".format(**names) in commands
        settings = yaml.safe_load((ROOT / "deploy" / "gke" / "settings.yaml").read_text(encoding="utf-8"))[
            "data"
        ]
        assert settings["PUBSUB_SUBSCRIPTION"] == names["subscription"]
        assert settings["QUARANTINE_TOPIC"] == names["quarantine_topic"]

    def test_the_subscription_is_that_of_the_commands(self):
        """The subscription has the values of the commands in docs/operations.md."""
        commands = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
        flags = dict(
            re.findall(r"--([a-z-]+)=(\S+)", commands.partition("subscriptions create chart-export ")[2])
        )
        made = MODULE.resource("google_pubsub_subscription", "worker")
        assert made["ack_deadline_seconds"] == int(flags["ack-deadline"])
        assert made["retry_policy"] == [
            {"minimum_backoff": flags["min-retry-delay"], "maximum_backoff": flags["max-retry-delay"]}
        ]
        (dead,) = made["dead_letter_policy"]
        assert dead["max_delivery_attempts"] == int(flags["max-delivery-attempts"]) == 20
        days = int(flags["message-retention-duration"].removesuffix("d"))
        assert made["message_retention_duration"] == f"{days * 86400}s"

    def test_the_outputs_are_settings_of_the_worker(self):
        """All outputs that name a resource are settings of the worker."""
        settings = re.findall(r"\b([A-Z_]{5,}) = ", MODULE.local_values["settings"])
        assert {name.lower() for name in settings} <= Settings.model_fields.keys()
        assert set(settings) == {
            "GOOGLE_CLOUD_PROJECT",
            "PUBSUB_SUBSCRIPTION",
            "QUARANTINE_TOPIC",
            "CHARTS_BUCKET",
            "FIRESTORE_DB",
        }
        assert {f"`{name}`" for name in MODULE.outputs} <= set(re.findall(r"`\w+`", README))
        assert all(output["description"] for output in MODULE.outputs.values())

    def test_terraform_refuses_wrong_values(self, terraform, tmp_path):
        """Terraform refuses a wrong value of each variable, planned on the variables alone."""
        shutil.copy(FOLDER / "variables.tf", tmp_path)
        (tmp_path / "variables.tftest.hcl").write_text(CASES, encoding="utf-8")
        assert terraform(tmp_path, "init", "-input=false").returncode == 0
        done = terraform(tmp_path, "test", "-no-color")
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{CASES.count('run ')} passed, 0 failed" in done.stdout

    def test_every_validation_has_a_case(self):
        """Every validation has a case in the test above."""
        validated = {name for name, variable in MODULE.variables.items() if variable.get("validation")}
        assert set(re.findall(r"expect_failures = \[var\.(\w+)\]", CASES)) == validated

    def test_every_name_of_a_resource_is_validated(self):
        """Every variable that names a resource has a validation, so that no apply fails half-way."""
        named = {
            found[1]
            for made in MODULE.resources.values()
            for key in ("name", "account_id")
            if (found := re.fullmatch(r"\$\{var\.(\w+)\}", made.get(key, "")))
        }
        assert len(named) == 6
        assert [name for name in named if not MODULE.variables[name].get("validation")] == []

    @pytest.mark.parametrize(
        ("topic", "taken"), [("flow-steps", "true"), ("projects/other/topics/flow-steps", "false")]
    )
    def test_only_a_topic_of_this_project_is_created(self, terraform, tmp_path, topic, taken):
        """A topic is created only in this project; the full name of another project's topic is accepted."""
        (lifecycle,) = MODULE.resources["google_pubsub_topic", "steps"]["lifecycle"]
        (precondition,) = lifecycle["precondition"]
        condition = precondition["condition"].removeprefix("${").removesuffix("}")
        shutil.copy(FOLDER / "variables.tf", tmp_path)
        given = [f"-var={name}=my-value" for name in ("project", "location", "bucket")]
        done = terraform(tmp_path, "console", *given, f"-var=topic={topic}", given=condition)
        assert (done.stdout.strip(), done.returncode) == (taken, 0), done.stderr
