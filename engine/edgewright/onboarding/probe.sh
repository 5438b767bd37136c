# Tells what a device is, one `key<TAB>value` a line: sh -s FOLDER. POSIX sh; whatever a small system lacks is left out.
root=$1
PATH=$PATH:/usr/sbin:/sbin:/usr/local/sbin:/system/bin
tab=$(printf '\t')
say() { [ -z "$2" ] || printf '%s\t%s\n' "$1" "$2"; }
text() { { tr -d '\000' <"$1" | head -n 1; } 2>/dev/null; }
prop() { command -v getprop >/dev/null 2>&1 && getprop "$1" 2>/dev/null; }

exec </dev/null 2>/dev/null
isa=$(uname -m)
say isa "$isa"
say bits "$(getconf LONG_BIT)"
say kernel "$(uname -sr)"
say clock "$(date +%s)"
say model "$(text /proc/device-tree/model || prop ro.product.model)"
say soc "$({ tr '\000' '\n' </proc/device-tree/compatible | tail -n 1; } 2>/dev/null || prop ro.soc.model)"
say release "$(text /etc/nv_tegra_release)"
say android "$(prop ro.build.version.release)"
say virtual "$(prop ro.boot.qemu)$(prop ro.kernel.qemu)"
say libc "$(getconf GNU_LIBC_VERSION || ldd --version 2>&1 | head -n 2 | tr '\n' ' ')"
say cores "$(getconf _NPROCESSORS_ONLN || nproc || grep -c '^processor' /proc/cpuinfo)"
grep -E '^(MemTotal|MemAvailable):' /proc/meminfo | while read -r line; do say memory "$line"; done
grep -E '^(vendor_id|model name|Hardware|Model|flags|Features)' /proc/cpuinfo | sort -u |
  while read -r line; do say cpuinfo "$line"; done
say auxv "$(od -A n -v -t u8 /proc/self/auxv | tr -s ' \n' ' ')"

# QEMU answers for `self` as if it were not there, but not for the thread.
for process in thread-self "$PPID"; do say program "$(basename "$(readlink "/proc/$process/exe")")"; done
[ ! -e "/proc/sys/fs/binfmt_misc/qemu-$isa" ] || say interpreted yes

folder=$root
while [ ! -d "$folder" ]; do folder=$(dirname "$folder"); done
say disk "$(df -Pk "$folder" | tail -n 1)"
say mark "$(text "$root/site/edgewright.json")"
if [ -e "$root/lock" ] && command -v flock >/dev/null; then flock -n "$root/lock" true || {
  say busy "$(text "$root/lock")"
  say held "$(sed -n 2p "$root/lock") $(cut -d ' ' -f 1 /proc/uptime)"
}; fi

cat /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor | sort -u | while read -r line; do say governor "$line"; done
for policy in /sys/devices/system/cpu/cpufreq/policy*; do
  [ ! -d "$policy" ] || say khz "$(text "$policy/cpuinfo_max_freq") $(text "$policy/scaling_max_freq")"
done
say power_mode "$(nvpmodel -q | sed -n 's/^NV Power Mode: *//p')"
say vcgencmd "$(vcgencmd get_throttled)"
say thermalservice "$(command -v dumpsys >/dev/null && dumpsys thermalservice | grep -m 1 'Thermal Status')"
for zone in /sys/class/thermal/thermal_zone*; do [ ! -d "$zone" ] || say zone "$(cat "$zone/temp") $(text "$zone/type")"; done
for cooler in /sys/class/thermal/cooling_device*; do [ ! -d "$cooler" ] || say cooler "$(text "$cooler/cur_state") $(text "$cooler/type")"; done

for chip in /sys/class/hwmon/hwmon* /sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*; do
  for label in "$chip"/in*_label; do
    [ ! -e "${label%_label}_input" ] || say sensor "$(text "$chip/name" || echo ina3221) $(text "$label")"
  done
  for input in "$chip"/power*_input "$chip"/energy*_input; do [ ! -e "$input" ] || say sensor "$(text "$chip/name") $(basename "$input")"; done
done
for rail in /sys/bus/i2c/drivers/ina3221x/*/iio:device*/rail_name_*; do [ ! -e "$rail" ] || say sensor "ina3221x $(text "$rail")"; done
for zone in /sys/class/powercap/*; do [ ! -e "$zone/energy_uj" ] || say sensor "powercap $(text "$zone/name")"; done
for supply in /sys/class/power_supply/*; do [ ! -e "$supply/current_now" ] || say sensor "power_supply $(basename "$supply")"; done
