"""The Dockerfile and the job for KubeRay, as far as they can be tested without an engine and a cluster."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.fixture(scope="module")
def steps() -> list[tuple[str, str]]:
    """Instructions and what follows them."""
    lines = [line for line in (ROOT / "Dockerfile").read_text("utf-8").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def of(steps: list[tuple[str, str]], wanted: str) -> list[str]:
    return [rest for name, rest in steps if name == wanted]


def test_what_is_copied_is_in_the_repository(steps: list[tuple[str, str]]) -> None:
    copied = [
        source for rest in of(steps, "COPY") if not rest.startswith("--from") for source in shlex.split(rest)[:-1]
    ]
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")]
    assert sorted(copied) == sorted(kept)
    assert all((ROOT / source).exists() for source in copied)
    listed = subprocess.run(
        ["git", "ls-files", "--", *copied], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    if listed:  # nothing outside a clone
        assert {name.partition("/")[0] for name in listed} == set(copied)
    # what the build reads
    build = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]
    assert build["build"]["targets"]["wheel"]["packages"] == ["src/unquant"]
    assert {
        *PROJECT["license-files"],
        *(f["path"] for f in build["metadata"]["hooks"]["fancy-pypi-readme"]["fragments"]),
    } <= {*copied}


def test_what_is_installed_is_pinned_and_there(steps: list[tuple[str, str]]) -> None:
    installs = [rest for rest in of(steps, "RUN") if "pip install" in rest]
    assert installs
    assert all("-c constraints.txt" in rest for rest in installs)
    pinned = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    named = [
        word for rest in installs for word in shlex.split(rest)[2:] if re.fullmatch(r"[a-z][\w.-]*(\[\w+\])?", word)
    ]
    others = {re.sub(r"\[.*", "", word) for word in named} - {"constraints.txt"}
    assert others == {"torch", "ray"}
    assert others <= {*pinned}
    (extras,) = re.findall(r"\.\[([\w,]+)\]", " ".join(installs))
    assert {"bulk", *extras.split(",")} <= {*PROJECT["optional-dependencies"]}
    assert "whl/cpu" in next(rest for rest in installs if shlex.split(rest)[-1] == "torch")


def test_it_runs_as_anyone_but_root(steps: list[tuple[str, str]]) -> None:
    bases = of(steps, "FROM")
    assert {base.split()[0] for base in bases} == {"python:3.11-slim"}
    assert PROJECT["requires-python"] == ">=3.11"
    last = steps[max(index for index, step in enumerate(steps) if step[0] == "FROM") :]
    (user,) = of(last, "USER")
    assert int(user) > 0  # by number, as Kubernetes asks for with runAsNonRoot
    assert json.loads(of(last, "ENTRYPOINT")[0])[0] in PROJECT["scripts"]


@pytest.mark.slow
@pytest.mark.usefixtures("shipped_weights", "shipped_av1_weights", "shipped_cdc_weights")
def test_the_health_check(steps: list[tuple[str, str]]) -> None:
    (check,) = of(steps, "HEALTHCHECK")
    program, *words = json.loads(check.partition("CMD ")[2])
    assert program in PROJECT["scripts"]
    done = subprocess.run([sys.executable, "-m", program, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout[:3]) == (0, "ok:"), done.stderr


def test_the_job_for_kuberay() -> None:
    yaml = pytest.importorskip("yaml")
    pytest.importorskip("sybil")
    from code_blocks import check

    (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "scale.md").read_text("utf-8"), re.DOTALL)
    job: dict[str, Any] = yaml.safe_load(block)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert spec.keys() <= {"entrypoint", "shutdownAfterJobFinishes", "backoffLimit", "rayClusterSpec"}
    check(spec["entrypoint"])
    # another try goes on where the last one ended, and a run that was never begun is not asked for --force
    assert {"--resume", "--address", "auto"} <= {*shlex.split(spec["entrypoint"])}
    cluster = spec["rayClusterSpec"]
    assert f"ray=={cluster['rayVersion']}" in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    (workers,) = cluster["workerGroupSpecs"]
    assert {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams"} <= workers.keys()
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"  # no codec beside the driver
    images: set[str] = set()
    for group in (cluster["headGroupSpec"], workers):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        (container,) = group["template"]["spec"]["containers"]
        images.add(container["image"])
        assert container["resources"]["requests"] == container["resources"]["limits"]
    assert len(images) == 1
