# Posts a body several times with one curl, which asks before it sends a large one, and prints each status.
body=$(mktemp); trap 'rm -f "$body"' EXIT
head -c "$2" /dev/zero > "$body"
args=()
for ((i = 0; i < $3; i++)); do
    [ "$i" = 0 ] || args+=(--next)
    args+=(-k -s -S --max-time 60 -o /dev/null -w '%{http_code}\n' --data-binary "@$body" "$1")
done
curl "${args[@]}" 2>&1 || true
