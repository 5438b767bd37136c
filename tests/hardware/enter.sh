# Puts a process into the emulated system: sh enter.sh COMMAND..., in fresh namespaces of users, mounts and processes.
# Takes the host's folders ROOT, SITE, PYCACHE and JOB, the file CPUINFO, QEMU_CPU, and maybe a script PREPARE that is
# run before the system is closed for writing. With OPEN the host's processes and the folders OPEN are there as well.
set -e
MAGIC='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
MASK='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'

mount --bind "$ROOT" "$ROOT"
if [ -n "$OPEN" ]; then mount --rbind /proc "$ROOT/proc"; else mount -t proc proc "$ROOT/proc"; fi
mount --rbind /sys "$ROOT/sys"
mount --rbind /dev "$ROOT/dev"
mount -t tmpfs tmpfs "$ROOT/tmp"
for folder in $OPEN; do mkdir -p "$ROOT$folder"; mount --bind "$folder" "$ROOT$folder"; done
mount --bind "$SITE" "$ROOT/site"
mount --bind "$PYCACHE" "$ROOT/pycache"
mount --bind "$JOB" "$ROOT/job"
mount --bind "$CPUINFO" "$ROOT/proc/cpuinfo"

# Since Linux 6.7 a namespace may have interpreters of its own; before, the host must have registered this one.
if mount -t binfmt_misc binfmt_misc "$ROOT/proc/sys/fs/binfmt_misc" 2>/dev/null; then
  echo ":qemu-aarch64:M::$MAGIC:$MASK:$(command -v qemu-aarch64-static):FP" >"$ROOT/proc/sys/fs/binfmt_misc/register"
fi

if [ -n "$PREPARE" ]; then . "$PREPARE"; fi
mount -o remount,bind,ro "$ROOT"
cd /
# Only where no namespace of processes was made: a crash of the first one there would go unseen, and it on and on.
${OPEN:+exec} chroot "$ROOT" /usr/bin/env -i -C /job QEMU_CPU="$QEMU_CPU" HOME=/tmp LANG=C.UTF-8 \
  PATH=/usr/local/bin:/usr/bin:/bin PYTHONPATH=/site:/job/agent.pyz PYTHONPYCACHEPREFIX=/pycache \
  ${EDGEWRIGHT_ONNXRUNTIME:+"EDGEWRIGHT_ONNXRUNTIME=$EDGEWRIGHT_ONNXRUNTIME"} "$@"
