"""iperf3: a control and a data connection between the same two programs."""
import json

from rig.pair import PORT, Wrong

from .stage import case, digest, file_digest, random_bytes, size

BLOCK = 16384


@case("iperf3", "iperf3", ["iperf3"], done="8 MB from a file to a file at 16 Mbit/s; two sessions")
def iperf3(s):
    data = random_bytes(8 << 20)
    source, target = s.file("source", data), s.path("target")
    server = s.server("iperf3", "-s", "-1", "-p", PORT, "-F", target)
    client = s.client("iperf3", "-c", "tage", "-p", PORT, "-F", source, "-b", "16M", "-l", BLOCK, "-n", len(data), "-J")
    s.protected(2)
    s.cuts_during("the data", lambda: size(target), len(data))
    s.end(client)
    s.end(server)
    result = json.loads("\n".join(x for x in client.lines if x))
    if "error" in result or not result["end"]["sum_received"]["bytes"]:
        raise Wrong(f"iperf3: {result.get('error', 'nothing received')}")
    # The sender's word that it is done overtakes what is still in the sockets, which iperf3 then leaves out.
    written = size(target)
    if written < result["end"]["sum_received"]["bytes"] or written < len(data) // 2:
        raise Wrong(f"iperf3 wrote {written} of {len(data)} bytes")
    s.same("the file", file_digest(target), digest(data[:written]), written)
