"""mosquitto: a broker between a publisher and a subscriber, each with a session."""
from rig import wait_for
from rig.pair import PORT

from .stage import case, digest, find, random_bytes

MESSAGES = 300


@case("mosquitto", "mosquitto, mosquitto_pub, mosquitto_sub", ["mosquitto", "mosquitto_pub", "mosquitto_sub"], ("-h",),
      done="300 messages of 8 kB, QoS 0, published and subscribed; two sessions")
def mosquitto(s):
    s.file("mosquitto.conf", f"user root\nlistener {PORT}\nallow_anonymous true\n")
    server = s.server(find("mosquitto"), "-v", "-c", s.path("mosquitto.conf"))
    subscriber = s.client("mosquitto_sub", "-h", "tage", "-p", PORT, "-t", "thesis", "-C", MESSAGES, name="subscriber")
    wait_for("the subscription", lambda: "SUBACK" in server.stderr(), s.timeout_s)
    publisher = s.client("mosquitto_pub", "-h", "tage", "-p", PORT, "-t", "thesis", "-l", name="publisher")
    messages = [random_bytes(4000, b"mqtt%d" % n).hex() for n in range(MESSAGES)]
    for n, message in enumerate(messages):
        publisher.send(message)
        if n == 0:
            s.protected(2)
        if n % 100 == 50:
            s.cut()
    publisher.close_stdin()
    s.end(publisher)
    s.end(subscriber)
    got, sent = "".join(x for x in subscriber.lines if x), "".join(messages)
    s.same("the messages", digest(got.encode()), digest(sent.encode()), len(sent))
