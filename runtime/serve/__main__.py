"""Answer over HTTP: a page to look at, and REST, live streams and metrics for programs.

Try:
  python -m runtime.serve
      then open http://127.0.0.1:8000/ and drop a photo on the page
  python -m runtime.serve --classes "cat, cup, fire truck" --score-threshold seen=0.3,unseen=0.2
      the classes to begin with; everyone who can reach the page can change them while it runs
  python -m runtime.serve rtsp://cam/1 door.mp4 0
      watch a stream, a video and camera 0; /live/cam-1 is the first as MJPEG
  CONTRASTZSD_TOKEN=... python -m runtime.serve --host 0.0.0.0
      for other machines too, with a token (or --token-file FILE); put a proxy with TLS before it

Ask it:
  curl --data-binary @photo.jpg http://127.0.0.1:8000/detect
  curl --data-binary @photo.jpg -H 'Accept: image/jpeg' http://127.0.0.1:8000/detect -o found.jpg
  curl -X POST -d '{"classes": ["forklift"]}' http://127.0.0.1:8000/classes
  curl --data-binary @crop.jpg 'http://127.0.0.1:8000/classes/examples?name=bracket'
  curl http://127.0.0.1:8000/openapi.json      all operations

Ctrl-C, SIGTERM and SIGHUP stop it within three seconds, open viewers or not.
Exit status: 0 stopped, 1 error.
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from runtime.arguments import Parser, add_detector_arguments, whole_number
from runtime.console import introduce, log_to_stderr, say
from runtime.detector import Detector
from runtime.serve.config import ServeConfig
from zsd_core.commands import Steps, command
from zsd_core.errors import ConfigError, require
from zsd_core.files import read_text

__all__ = ["configured", "main", "parse"]

TOKEN = "CONTRASTZSD_TOKEN"
MIB = 2**20
GRACE = 0.5  # seconds that threads have to end after the service


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the service until it is stopped; return the exit status."""
    args, step = parse(argv), Steps(2)
    level = logging.INFO if args.verbose else logging.WARNING
    log_to_stderr(level, "%(levelname)s %(name)s: %(message)s")
    require("uvicorn", "serve")
    from runtime.serve.server import run

    config = configured(args)
    with step("open the bundle"):
        detector = _open_detector(args)
    introduce(detector)
    with step("listen"):
        listener = _listen(args.host, args.port)
    if config.token is None and not _is_loopback(args.host):
        say(
            "warning: whoever reaches this address can see the pictures and change the classes;"
            f" give a token ({TOKEN} or --token-file).",
            file=sys.stderr,
        )
    host = f"[{args.host}]" if ":" in args.host else args.host
    print(f"http://{host}:{listener.getsockname()[1]}/", flush=True)
    run(detector, config, args.sources, listener, access_log=args.verbose)
    say("stopped", file=sys.stderr)
    _end(detector)
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    summary, _, examples = (__doc__ or "").partition("\n\n")
    parser = Parser(
        prog="python -m runtime.serve",
        description=summary,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "sources",
        nargs="*",
        metavar="VIDEO|CAMERA|ADDRESS",
        help="sources to watch: a video, a camera number, an address such as rtsp://host/path",
    )
    what = parser.add_argument_group("what is found")
    add = what.add_argument
    add_detector_arguments(add)
    add(
        "--threads", type=int, metavar="N", help="CPU threads of a picture; default: all it may use"
    )
    who = parser.add_argument_group("who may ask")
    add = who.add_argument
    add("--host", default="127.0.0.1", help="address to listen on; default: this machine only")
    add("--port", type=int, default=8000, help="default: 8000; 0 takes a free one")
    add("--token-file", type=Path, metavar="FILE", help=f"holds the token; else ${TOKEN}")
    add(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name or address that browsers may call this service by, such as that of a proxy "
        "before it; repeat for several",
    )
    much = parser.add_argument_group("how much")
    add = much.add_argument
    add(
        "--queue", type=int, default=16, metavar="N", help="pictures at a time, others get 503 (16)"
    )
    add("--workers", type=int, default=1, metavar="N", help="of them searched at a time (1)")
    add("--max-body", type=float, default=16, metavar="MIB", help="of a request (16)")
    add("--max-pixels", type=float, default=25, metavar="MP", help="megapixels of a picture (25)")
    add("--timeout", type=float, default=30, metavar="S", help="seconds of a request (30)")
    add("--max-viewers", type=int, default=32, metavar="N", help="open streams (32)")
    add("--loop", action="store_true", help="begin a watched video again when it has ended")
    add("--live-timeout", type=float, default=5, metavar="S", help="until a camera is lost (5)")
    parser.add_argument("--verbose", action="store_true", help="log every request")
    return parser.parse_intermixed_args(argv)


def configured(args: argparse.Namespace) -> ServeConfig:
    """Limits and secrets from the command line and the environment."""
    if not args.host.strip():
        raise ConfigError(
            "--host is blank, which would listen on every address; write 0.0.0.0 if you mean that."
        )
    hosts = tuple(args.allow_host)
    if _is_loopback(args.host):
        hosts = (*ServeConfig().hosts, args.host, *hosts)
    return ServeConfig(
        queue=args.queue,
        workers=args.workers,
        body_bytes=whole_number("--max-body", args.max_body, MIB),
        pixels=whole_number("--max-pixels", args.max_pixels, 10**6),
        timeout=args.timeout,
        viewers=args.max_viewers,
        token=_token(args.token_file),
        hosts=hosts,
        live_timeout=args.live_timeout,
        loop=args.loop,
    )


def _token(path: Path | None) -> str | None:
    """The token of the file or of the environment; None where neither is given.

    Raises:
        ConfigError: one is given but blank, the file cannot be read, or the two differ.
    """
    given = {f"the environment variable {TOKEN}": os.environ.get(TOKEN)}
    if path is not None:
        given[f"--token-file {path}"] = read_text(path, "--token-file", ConfigError)
    tokens = {where: token.strip() for where, token in given.items() if token is not None}
    for where, token in tokens.items():
        if not token:
            raise ConfigError(
                f"{where} is blank, so anybody would be let in; write a token there, or leave it "
                "out to serve without one."
            )
    if len(set(tokens.values())) > 1:
        raise ConfigError(f"{' and '.join(tokens)} hold different tokens; leave one out.")
    return next(iter(tokens.values()), None)


def _is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address, however it is written."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # nobody can listen there, which is said then
        return False
    addresses = (ip_address(str(where[0]).partition("%")[0]) for *_, where in found)
    return all((getattr(a, "ipv4_mapped", None) or a).is_loopback for a in addresses)


def _open_detector(args: argparse.Namespace) -> Detector:
    return Detector(
        args.bundle,
        backend=args.backend,
        precision=args.precision,
        classes=args.classes,
        exact=args.exact,
        mode=args.mode,
        score_threshold=args.score_threshold,
        threads=args.threads,
        require_signature=args.require_signature,
    )


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ConfigError: the address is not this machine's, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"--host {host} --port {port}: cannot listen there: {reason}; choose another port, "
            "or 0 for a free one."
        ) from error
    return listener


def _end(detector: Detector) -> None:
    """Free the detector, or leave at once: a camera that hangs would keep the process for long."""
    others = [t for t in threading.enumerate() if t is not threading.current_thread()]
    end = time.monotonic() + GRACE
    for thread in others:
        thread.join(max(0.0, end - time.monotonic()))
    if not any(thread.is_alive() for thread in others):
        detector.close()
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
