"""Lists the modules whose targets, predictors and connections come with the engine; a new one is one more line."""

from __future__ import annotations

EDGEWRIGHT_API = 1

MODULES = (
    "edgewright_devices.adb",
    "edgewright_devices.local",
    "edgewright_devices.profiles",
    "edgewright_devices.roofline",
    "edgewright_devices.ssh",
)
