"""Writes what was found in an image as CycloneDX 1.6 (https://cyclonedx.org), by the library of those who make it.

`make sbom` runs this file in an environment of its own, for which tools/sbom/requirements.txt is the list. The
same image makes the same document.
"""

import json
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.factory.license import LicenseFactory
from cyclonedx.model import Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

Found = dict[str, Any]


def written(found: Found) -> str:
    """The document, indented."""
    image = Component(
        type=ComponentType.CONTAINER,
        name=found["image"]["name"],
        version=found["image"]["version"],
        bom_ref="image",
        properties=[Property(name="image-id", value=found["image"]["id"])],
    )
    bom = Bom(serial_number=uuid5(NAMESPACE_URL, f"concert-saga:{found['image']['id']}"))
    bom.metadata.timestamp = datetime.fromisoformat(found["image"]["created"])
    bom.metadata.component = image
    system, interpreter = _system(found), _interpreter(found)
    debian = list(_debian(found))
    python = {it["name"]: _python(it) for it in found["python"]}
    everything = [system, interpreter, *debian, *python.values()]
    bom.components.update(everything)
    bom.register_dependency(image, everything)
    for it in found["python"]:
        bom.register_dependency(python[it["name"]], [python[need] for need in it["needs"] if need in python])
    told: str = JsonV1Dot6(bom).output_as_string(indent=2)
    return told


def _system(found: Found) -> Component:
    told = found["system"]
    name, version = told.get("ID", "linux"), told.get("VERSION_ID", "")
    return Component(type=ComponentType.OPERATING_SYSTEM, name=name, version=version, bom_ref="system")


def _interpreter(found: Found) -> Component:
    version = found["interpreter"]
    purl = PackageURL("generic", None, "python", version)
    return Component(
        type=ComponentType.APPLICATION, name="python", version=version, purl=purl, bom_ref="interpreter"
    )


def _python(it: Found) -> Component:
    purl = PackageURL("pypi", None, it["name"], it["version"])
    licenses = [LicenseFactory().make_from_string(it["license"])] if it["license"] else []
    return Component(
        type=ComponentType.LIBRARY,
        name=it["name"],
        version=it["version"],
        purl=purl,
        bom_ref=str(purl),
        licenses=licenses,
    )


def _debian(found: Found) -> Iterator[Component]:
    distro = f"{found['system'].get('ID', 'debian')}-{found['system'].get('VERSION_ID', '')}".rstrip("-")
    for it in found["debian"]:
        qualifiers = {"arch": it["architecture"], "distro": distro}
        if (it["source"], it["source_version"]) != (it["name"], it["version"]):
            qualifiers["upstream"] = f"{it['source']}@{it['source_version']}"
        purl = PackageURL("deb", "debian", it["name"], it["version"], qualifiers)
        yield Component(
            type=ComponentType.LIBRARY, name=it["name"], version=it["version"], purl=purl, bom_ref=str(purl)
        )


if __name__ == "__main__":
    sys.stdout.write(written(json.load(sys.stdin)) + "\n")
