# Says when Docker answers, and how much memory is in use 20 s later. `docker version` needs the daemon's answer; without
# its socket it would only fail, over and over, and slow down what is measured.
socket=${DOCKER_HOST#unix://}
until test -S "${socket:-/run/docker.sock}"; do sleep 0.05; done
until docker version >/dev/null 2>&1; do sleep 0.05; done
read up rest </proc/uptime
echo "@@bench answered@@"
sleep 20
while read key kib unit; do
    case $key in MemTotal:) total=$kib ;; MemAvailable:) available=$kib ;; esac
done </proc/meminfo
echo "@@bench docker_s=$up total_kib=$total available_kib=$available@@"
