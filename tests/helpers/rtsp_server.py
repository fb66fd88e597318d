"""A real RTSP server for tests: run it with the system's Python, which has GStreamer's bindings.

    /usr/bin/python3 rtsp_server.py PORT [FRAMES_PER_SECOND [USER PASSWORD]]

It serves ``rtsp://127.0.0.1:PORT/clock`` as H.264. Every frame shows 40 black or white squares, 8 a
row: 32 bits of the monotonic clock in milliseconds, then 8 bits that count the frames.
"""

from __future__ import annotations

import sys
import time

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

SQUARE, COLUMNS, ROWS = 16, 8, 5
PIPELINE = (
    "( appsrc name=source is-live=true do-timestamp=true format=time "
    "caps=video/x-raw,format=GRAY8,width={width},height={height},framerate={rate}/1 "
    "! videoconvert ! video/x-raw,format=I420 "
    "! x264enc tune=zerolatency speed-preset=ultrafast key-int-max={rate} threads=1 "
    "! rtph264pay name=pay0 pt=96 )"
)


def picture(number: int) -> bytes:
    clock = int(time.monotonic() * 1000) & 0xFFFFFFFF
    bits = f"{clock:032b}{number & 0xFF:08b}"
    rows = [bits[start : start + COLUMNS] for start in range(0, len(bits), COLUMNS)]
    line = {"0": b"\x10" * SQUARE, "1": b"\xeb" * SQUARE}
    return b"".join(b"".join(line[bit] for bit in row) * SQUARE for row in rows)


def feed(_factory: object, media: GstRtspServer.RTSPMedia, rate: int) -> None:
    source = media.get_element().get_by_name_recurse_up("source")
    number = 0

    def push() -> bool:
        nonlocal number
        number += 1
        buffer = Gst.Buffer.new_wrapped(picture(number))
        return source.emit("push-buffer", buffer) == Gst.FlowReturn.OK

    GLib.timeout_add(1000 // rate, push)


def main(port: str, rate: str = "25", user: str = "", password: str = "") -> None:
    Gst.init(None)
    server = GstRtspServer.RTSPServer(service=port, address="127.0.0.1")
    factory = GstRtspServer.RTSPMediaFactory(shared=True)
    size = {"width": SQUARE * COLUMNS, "height": SQUARE * ROWS, "rate": rate}
    factory.set_launch(PIPELINE.format(**size))
    factory.connect("media-configure", feed, int(rate))
    if user:
        auth = GstRtspServer.RTSPAuth()
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", user)
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
        server.set_auth(auth)
        factory.add_role_from_structure(
            Gst.Structure.new_from_string(
                f"{user}, media.factory.access=true, media.factory.construct=true"
            )
        )
    server.get_mount_points().add_factory("/clock", factory)
    server.attach(None)
    print("ready", flush=True)
    GLib.MainLoop().run()


main(*sys.argv[1:])
