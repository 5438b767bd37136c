"""Lists the modules of targets, predictors, connections and meters that come with the engine; a new one is one line."""

from __future__ import annotations

EDGEWRIGHT_API = 1

MODULES = (
    "edgewright_devices.adb",
    "edgewright_devices.local",
    "edgewright_devices.meters.battery",
    "edgewright_devices.meters.external",
    "edgewright_devices.meters.ina3221",
    "edgewright_devices.meters.nvml",
    "edgewright_devices.meters.pmic",
    "edgewright_devices.meters.rapl",
    "edgewright_devices.predictor.predict",
    "edgewright_devices.profiles",
    "edgewright_devices.ssh",
)
