"""Posts a body several times on one connection while the server lets it, and prints each status."""
import http.client
import ssl
import sys
from urllib.parse import urlsplit

url, size, count = urlsplit(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
body = b"x" * size


def connect():
    if url.scheme == "https":
        return http.client.HTTPSConnection(url.netloc, timeout=60, context=ssl._create_unverified_context())
    return http.client.HTTPConnection(url.netloc, timeout=60)


client = connect()
for _ in range(count):
    try:
        client.request("POST", url.path, body)
        answer = client.getresponse()
        answer.read()
        print(answer.status)
    except Exception as error:
        print(f"error: {error!r}")
        client.close()
