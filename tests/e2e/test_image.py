"""The image of the services: what is in it, and what is not; `test_compose` looks at it while it runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from referencing import Registry
from referencing.jsonschema import DRAFT7

from tests.support.tools import missing
from tools import sbom
from tools.advisories import pins
from tools.docker_engine import ROOT, SetupError, answer
from tools.images import Images
from tools.sbom.__main__ import ENVIRONMENT, document, found_in

pytestmark = pytest.mark.container

REQUIREMENTS = ROOT / "requirements" / "runtime.txt"
#: With Debian, Python and all libraries; it was 400 MB once, of which half was for installing more.
MOST_BYTES = 300_000_000


def _inside(image: str, script: str) -> str:
    """What a shell in a new container says."""
    command = ["docker", "run", "--rm", "--network=none", "--entrypoint=sh", image, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout + done.stderr


def test_the_image_is_small_and_says_how_small(stand: Images, capsys: pytest.CaptureFixture[str]) -> None:
    """Each node pulls it, and each file in it is one more that can be at fault."""
    size = int(answer("docker", "image", "inspect", "--format", "{{.Size}}", stand.service) or 0)
    with capsys.disabled():
        sys.stdout.write(f" {stand.service}: {size / 1_000_000:.0f} MB ")
    assert 0 < size < MOST_BYTES


def test_nothing_in_the_image_installs_compiles_or_becomes_root(stand: Images) -> None:
    """Whoever gets in finds as few tools as can be."""
    said = _inside(
        stand.service,
        "id -u; for it in pip pip3 gcc cc g++ make ld; do command -v $it; done; "
        "find / -xdev -type f -perm /6000 2>/dev/null; find / -xdev -name 'pip*.whl' 2>/dev/null; echo end",
    )
    assert said.split() == ["10001", "end"]
    assert "No module named pip" in _inside(stand.service, "/venv/bin/python -m pip --version")
    for python in ("/venv/bin/python", "$(readlink -f /venv/bin/python)"):
        assert "\nno\n" in _inside(
            stand.service, f"{python} -m ensurepip --root /tmp/x; [ $? = 0 ] || printf '\nno\n'"
        )


def test_nothing_of_the_services_can_be_changed_by_them(stand: Images) -> None:
    """Even where nobody mounts the root file system read-only: only var is theirs."""
    said = _inside(stand.service, "find / -xdev '(' -type f -o -type d ')' -writable 2>/dev/null; echo end")
    theirs = {line for line in said.split() if not re.match(r"/(proc|dev|sys|tmp|var/tmp|run/lock)\b", line)}
    assert theirs == {"/app/var", "/app/var/secrets", "end"}


def test_the_image_has_the_releases_that_are_pinned_and_no_others(stand: Images) -> None:
    """Requirements are pinned and hashed; this is what came of it."""
    installed = {it["name"]: it["version"] for it in found_in(stand.service)["python"]}
    pinned = {pin.name: pin.version for pin in pins.read(REQUIREMENTS)}
    assert installed.items() <= pinned.items()
    elsewhere = set(re.findall(r"(?m)^([a-z0-9-]+)==.*;.*win32", REQUIREMENTS.read_text()))
    assert set(pinned) - set(installed) <= elsewhere


def test_every_pin_has_its_hash() -> None:
    """Without one, whoever has the index, or the way to it, says what is run."""
    for file in (
        REQUIREMENTS,
        ROOT / "requirements" / "dev.txt",
        Path(sbom.__file__).with_name("requirements.txt"),
    ):
        blocks = re.split(r"(?m)^(?=[A-Za-z0-9])", re.sub(r"(?m)^\s*#.*\n", "", file.read_text()))[1:]
        assert blocks
        assert all("--hash=sha256:" in block for block in blocks), file


@pytest.fixture(scope="session")
def bom(stand: Images) -> dict[str, Any]:
    """The list of what is in the image."""
    try:
        told: dict[str, Any] = json.loads(document(stand.service))
    except SetupError as error:
        missing("cyclonedx", f"`make sbom` cannot have its library: {error}")
    return told


def test_the_list_of_what_is_in_the_image_is_whole(stand: Images, bom: dict[str, Any]) -> None:
    """What is not in the list is not looked for when the next fault becomes known."""
    found = found_in(stand.service)
    listed = {it["purl"].partition("?")[0] for it in bom["components"] if "purl" in it}
    wanted = {f"pkg:pypi/{it['name']}@{it['version']}" for it in found["python"]}
    wanted |= {f"pkg:deb/debian/{it['name'].replace('+', '%2B')}" for it in found["debian"]}
    names = listed | {purl.rpartition("@")[0] for purl in listed}
    assert wanted <= names
    assert f"pkg:generic/python@{found['interpreter']}" in listed
    assert len(found["python"]) > 40
    assert {it["name"] for it in found["debian"]} >= {"libssl3t64", "libc6"}
    needs = {it["ref"]: it.get("dependsOn", []) for it in bom["dependencies"]}
    (tortoise,) = [ref for ref in needs if ref.startswith("pkg:pypi/tortoise-orm@")]
    assert any(ref.startswith("pkg:pypi/aiosqlite@") for ref in needs[tortoise])
    assert bom["metadata"]["component"]["properties"] == [{"name": "image-id", "value": found["image"]["id"]}]


def test_the_list_is_what_cyclonedx_says_it_is_and_the_same_for_the_same_image(
    stand: Images, bom: dict[str, Any]
) -> None:
    """Scanners take it or leave it by its schema, which comes with the library."""
    (here,) = ENVIRONMENT.glob("lib/python*/site-packages/cyclonedx/schema/_res")
    schemas = {file.name: json.loads(file.read_text()) for file in here.glob("*.schema.json")}
    # They name one another by the files that they are in.
    registry: Registry[Any] = Registry().with_resources(
        (f"http://cyclonedx.org/schema/{name}", DRAFT7.create_resource(schema)) for name, schema in schemas.items()
    )
    (wanted,) = [schema for name, schema in schemas.items() if name.startswith("bom-1.6.")]
    Draft7Validator(wanted, registry=registry).validate(bom)
    assert bom["specVersion"] == "1.6"
    assert json.loads(document(stand.service)) == bom
