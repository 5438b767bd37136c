"""The deployable directory: written in one move, and believed only after every digest was checked.

    manifest.json          what it is: signature, stages, artifacts, plan, recipe, verdict, every file's sha-256
    artifacts/*            the graphs
    example/inputs.npz     a synthetic input and
    example/outputs.npz    what the bundle answered to it when it was made
    example/stream.npz     inputs for many runs, where what a run costs depends on them
    measurements.json      raw measurements
    report.md              the table people read

Part of the device set: Python 3.9, standard library only.
"""

from edgewright.bundle.contents import Bundle, Contents
from edgewright.bundle.entries import parse_signature, parse_variant, plain, variant_entry
from edgewright.bundle.files import file_digest, safe_place
from edgewright.bundle.manifest import MANIFEST, SCHEMA, manifest_digest
from edgewright.bundle.reading import is_bundle, open_bundle
from edgewright.bundle.writing import check_destination, write_bundle

__all__ = [
    "Bundle",
    "Contents",
    "MANIFEST",
    "SCHEMA",
    "check_destination",
    "file_digest",
    "is_bundle",
    "manifest_digest",
    "open_bundle",
    "parse_signature",
    "parse_variant",
    "plain",
    "safe_place",
    "variant_entry",
    "write_bundle",
]
