"""What a device was like while it was measured, in words: clocks, heat, power mode, what slowed it down, which CPUs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgewright.reporting.tables import digits

HOT_C = 80.0
"""Where boards begin to slow down (Raspberry Pi: 80 °C soft limit; Jetson: some degrees above)."""


def in_words(conditions: Mapping[str, Any]) -> str:
    """What was read before and after, in a line; only what the device tells. `conditions` are a measurement's."""
    before, after = _pair(conditions)
    cpus = ", ".join(map(str, before.get("cpus") or ()))
    parts = (
        f"CPUs {cpus}" if cpus else "",
        f"governor {conditions['governor']}" if conditions.get("governor", "unknown") != "unknown" else "",
        _range("clocks", [_clock(each) for each in (before, after)], "MHz"),
        _range("", [each.get("temperature_c") for each in (before, after)], "°C"),
        f"power mode {before['power_mode']}" if before.get("power_mode") else "",
        _range("load average", [each.get("load_average") for each in (before, after)], ""),
    )
    return ", ".join(filter(None, parts))


def warnings(conditions: Mapping[str, Any]) -> Iterator[str]:
    """What made the figures other than they could be, a sentence each; nothing where nothing is known to have."""
    before, after = _pair(conditions)
    signs = [f"{each['throttled']} ({when})" for when, each in (("before", before), ("after", after)) if _slowed(each)]
    if signs:
        yield f"the device was slowed down while it was measured: {', '.join(signs)}; cool it or give it more power"
    first, last = (each.get("throttle_count") for each in (before, after))
    if first is not None and last is not None and last > first:
        yield f"its cores were slowed for heat {last - first} times while they were measured"
    held = [clock for clock in before.get("clocks", ()) if _held(clock)]
    if held:
        caps = ", ".join(f"CPUs {c['cpus']} to {digits(c['limit_mhz'])} of {digits(c['most_mhz'])} MHz" for c in held)
        yield f"clocks were held below what the processor can do: {caps}"
    mode = before.get("power_mode", "")
    if mode and not mode.startswith("MAXN"):
        yield f"the power mode {mode} caps clocks and cores; `nvpmodel -q` tells, `nvpmodel -m 0` is the highest"
    hot = after.get("temperature_c")
    if hot is not None and hot >= HOT_C:
        yield f"the device was at {hot:.0f} °C in the end, where boards begin to slow down"


def _pair(conditions: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    return conditions.get("before") or {}, conditions.get("after") or {}


def _slowed(each: Mapping[str, Any]) -> bool:
    return bool(each.get("throttled"))


def _held(clock: Mapping[str, Any]) -> bool:
    limit, most = clock.get("limit_mhz"), clock.get("most_mhz")
    return limit is not None and most is not None and limit < most


def _clock(each: Mapping[str, Any]) -> float | None:
    """What the group of CPUs with the highest clock runs at, as the timed process is put there."""
    clocks = [clock for clock in each.get("clocks", ()) if clock.get("mhz") and clock.get("most_mhz")]
    return max(clocks, key=lambda clock: clock["most_mhz"])["mhz"] if clocks else None


def _range(what: str, readings: Sequence[float | None], unit: str) -> str:
    found = [digits(each) for each in readings if each is not None]
    if not found:
        return ""
    return " ".join(filter(None, (what, " to ".join(dict.fromkeys(found)), unit)))
