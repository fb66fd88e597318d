"""Streams on a real RTSP server: age of frames, loss and return, clean ends, no password shown."""

import logging
import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from statistics import median

import cv2
import pytest
from rtsp import RtspServer, SilentServer, free_port, read_clock, require_server
from videos import nothing

from runtime import Stream

TIMEOUT, RETRY = 2.0, (0.2, 0.5)  # OpenCV needs more than a second to open a stream
WITHIN = 3 * TIMEOUT + RETRY[1] + 2  # seconds from a server's return to frames


@pytest.fixture
def server():
    with RtspServer() as server:
        yield server


def age(image):
    return time.monotonic() - read_clock(image)[0]


def thirds(ages):
    return median(ages[: len(ages) // 3]), median(ages[-(len(ages) // 3) :])


def is_fresh(ages):
    """The condition on the age of frames, which a plain loop must fail."""
    first, last = thirds(ages)
    return median(ages) < 0.25 and last < first + 0.1


@pytest.mark.slow
def test_frames_are_fresh_however_slow_the_detector_and_a_plain_loop_is_not(server):
    ages, plain = [], []

    def slow(images, *, color):
        ages.extend(age(image) for image in images)
        time.sleep(0.4)
        return nothing(images, color=color)

    def plain_loop():
        capture = cv2.VideoCapture(server.url, cv2.CAP_FFMPEG)
        while len(plain) < 20 and (got := capture.read())[0]:
            plain.append(age(got[1]))
            time.sleep(0.4)
        capture.release()

    other = threading.Thread(target=plain_loop)
    other.start()
    with Stream(slow, [server.url], timeout=5, retry=None) as stream:
        for frame, _ in stream:
            if len(ages) == 22:
                break
            assert 0 <= time.time() - frame.captured
    other.join()
    assert is_fresh(ages[2:]), f"p50 {median(ages):.3f}, thirds {thirds(ages)}"
    assert len(plain) == 20 and not is_fresh(plain)


class Watch:
    """Takes frames in a thread, and notes when, how old they were, and every status."""

    def __init__(self, stream):
        self.frames, self.states = [], []
        self._stream = stream
        self._threads = [threading.Thread(target=run) for run in (self._take, self._look)]
        for thread in self._threads:
            thread.start()

    def _take(self):
        for frame, _ in self._stream:
            made = read_clock(frame.image)[0]
            self.frames.append((time.monotonic(), made, frame.connection))

    def _look(self):
        while self._threads[0].is_alive():
            (state,) = self._stream.states.values()
            if not self.states or self.states[-1] != state.status:
                self.states.append(state.status)
            time.sleep(0.02)

    def wait(self, condition, seconds):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not within {seconds} s; states {self.states}"
            time.sleep(0.02)

    def wait_for_frames(self, after, seconds):
        """Until there is a frame that was made after a moment."""
        self.wait(lambda: self.frames and self.frames[-1][1] > after, seconds)

    def wait_for_state(self, status, seconds):
        self.wait(lambda: self.states and self.states[-1] == status, seconds)

    def join(self):
        for thread in self._threads:
            thread.join()


def no_frame_is_older_than_its_loss(watch):
    """Frames of a later connection were made after every frame of an earlier one."""
    for (_, made, connection), (_, next_made, next_connection) in zip(
        watch.frames, watch.frames[1:], strict=False
    ):
        assert next_made > made or connection == next_connection
    return True


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_lost_server_comes_back(server, how, caplog):
    caplog.set_level(logging.WARNING, "runtime.stream")
    with Stream(nothing, [server.url], timeout=TIMEOUT, retry=RETRY) as stream:
        watch = Watch(stream)
        watch.wait_for_frames(0, 15)
        watch.wait_for_state("running", 5)
        if how == "killed":
            server.kill()
        else:
            server.pause()
        lost = time.monotonic()
        watch.wait(lambda: next(iter(stream.states.values())).losses == 1, 3 * TIMEOUT + 2)
        watch.wait_for_state("lost", 2)
        assert str(*stream.states.values()).startswith(f"lost: {server.url}: ")
        time.sleep(0.5)
        back = time.monotonic()
        if how == "killed":
            server.start()
        else:
            server.go_on()
        watch.wait_for_frames(back, WITHIN + 2)  # and two for a busy machine
        watch.wait_for_state("running", 1)
        first = next(f for f in watch.frames if f[2] == 1)
        assert first[1] > lost
        assert no_frame_is_older_than_its_loss(watch)
        stream.close()
        watch.join()
    assert [s for s in watch.states if s != "opening"] == ["running", "lost", "running"]
    assert "next attempt in 0.2 s" in caplog.text


@pytest.mark.slow
def test_a_server_that_accepts_and_is_silent_is_a_loss_until_it_speaks():
    require_server()
    with SilentServer() as silent:
        port = silent.port
        with Stream(nothing, {"door": silent.url}, timeout=TIMEOUT, retry=RETRY) as stream:
            watch = Watch(stream)
            watch.wait_for_state("lost", 3 * TIMEOUT + 2)
            assert f"port {port} answers, but sends no video" in str(stream.states["door"])
            assert stream.states["door"].losses == 0  # it never was there
            silent.__exit__()
            with RtspServer(port=port):
                watch.wait_for_frames(0, WITHIN + 4)
                assert str(stream.states["door"]) == "running"
                stream.close()
                watch.join()


LOOP = """
import sys
from videos import nothing
from runtime import Stream
stream = Stream(nothing, [sys.argv[1]], timeout=5, retry=None)
said = False
for frame, found in stream:
    if not said:
        print("frames", flush=True)
        said = True
"""


@contextmanager
def run_script(text, *arguments):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with subprocess.Popen(
        [sys.executable, "-c", text, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow
def test_no_end_of_an_iteration_aborts_the_process():
    """Ten times: the stream is not closed, and the server is killed."""
    with RtspServer() as server, ExitStack() as stack:
        processes = [stack.enter_context(run_script(LOOP, server.url)) for _ in range(10)]
        for process in processes:
            assert process.stdout.readline() == "frames\n"
        server.kill()
        for process in processes:
            errors = process.stderr.read()
            assert process.wait(20) == 1
            assert "ImageError" in errors and "sends no more frames" in errors


@pytest.mark.slow
@pytest.mark.parametrize("end", ["break", "raise SystemExit(5)", "1 / 0"])
def test_leaving_a_running_stream_aborts_nothing(server, end):
    script = LOOP.replace('print("frames", flush=True)', end).replace("retry=None", "retry=(1, 2)")
    with run_script(script, server.url) as process:
        errors = process.stderr.read()
        assert process.wait(20) == {"break": 0, "1 / 0": 1}.get(end, 5)
        assert "terminate" not in errors and "FATAL" not in errors


@pytest.mark.slow
def test_a_dead_source_harms_no_other(server):
    """Alone, then with one that is absent and one that dies: the same rate, within 20 %."""

    def rate(urls, kill=None, seconds=4.0):
        times = []
        with Stream(nothing, urls, timeout=TIMEOUT, retry=RETRY) as stream:
            for frame, _ in stream:
                if frame.source == "alive":
                    times.append(time.monotonic())
                    if kill and len(times) == 20:
                        kill()
                    if times[-1] - times[0] > seconds + 2:
                        break
        late = [t for t in times if t - times[0] > 2]  # the first are those buffered at the start
        return len(late) / (late[-1] - late[0])

    alone = rate({"alive": server.url})
    with RtspServer() as dying:
        absent = f"rtsp://127.0.0.1:{free_port()}/clock"
        urls = {"absent": absent, "dying": dying.url, "alive": server.url}
        together = rate(urls, kill=dying.kill)
    assert together >= 0.8 * alone


SECRET = "s3cr3t"
ERRORS = """
import sys, traceback
from videos import nothing
from runtime import Stream
lost, *sources = sys.argv[1:]
for source in sources:
    stream = None
    try:
        timeout = 5 if source == lost else 0.5
        stream = Stream(nothing, [source], timeout=timeout, retry=None)
        for frame, _ in stream:
            print(frame, stream.states, flush=True)
            if source == lost and frame.index >= 3:
                print("kill", flush=True)
    except Exception as error:
        traceback.print_exc()
        print(repr(error), stream and stream.states, flush=True)
stream = Stream(nothing, [lost], timeout=0.5, retry=(0.1, 0.2), endless=True)
for attempt in (lambda: stream.add(lost), lambda: stream.remove(lost), lambda: stream.remove(lost)):
    try:
        attempt()
    except Exception as error:
        traceback.print_exc()
stream.add(sources[0], name="named")
while str(stream.states["named"]) == "opening":
    pass
print(stream.states)
stream.close()
"""


@pytest.mark.slow
def test_a_password_is_in_no_output():
    """Servers that want another one, are silent, absent or lost; addresses that are malformed."""
    login = f"admin:{SECRET}"
    with (
        RtspServer("admin", "another") as strict,
        RtspServer("admin", SECRET) as lost,
        SilentServer() as silent,
    ):
        sources = [
            f"rtsp://{login}@127.0.0.1:{strict.port}/clock",
            f"rtsp://{login}@127.0.0.1:{strict.port}/none",
            f"rtsp://{login}@127.0.0.1:{silent.port}/clock",
            f"rtsp://{login}@127.0.0.1:{free_port()}/clock",
            f"rtsp://{login}@no-such-host.invalid/clock",
            f"rtsp://{login}@[::1/clock",
            f"rtsp://{login}@127.0.0.1:99999/clock",
            f"rtsp://admin:p@ss/{SECRET} x@127.0.0.1/clock",
            f"nothing://{login}@127.0.0.1/clock",
            f"rtsp:/{login}@127.0.0.1/clock",
            f"{login}@127.0.0.1/clock",
            f"http://{login}@127.0.0.1:{free_port()}/clip.mp4",
            f"http://{login}@127.0.0.1:{free_port()}/snapshot.jpg",
            f"http://{login}@127.0.0.1:{free_port()}/live.m3u8",
            f"http://127.0.0.1:{free_port()}/mjpg?user=admin&password={SECRET}",
            f"rtspsrc location=rtsp://{login}@127.0.0.1/clock ! appsink",
            lost.url,
        ]
        with run_script(ERRORS, lost.url, *sources) as process:
            out = ""
            while not out.endswith("kill\n"):
                line = process.stdout.readline()
                assert line, out + process.stderr.read()
                out += line
            lost.kill()
            rest, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    everything = out + rest + errors
    assert everything.count("ImageError") >= 2 * len(sources)
    assert "rtsp://***@" in everything
    assert "sends no more frames" in everything
    assert SECRET not in everything


@pytest.mark.slow
def test_the_command_line_shows_no_password_either(tmp_path, bundle_path):
    login = f"admin:{SECRET}"
    with RtspServer("admin", SECRET) as server:
        command = [sys.executable, "-m", "runtime.detect", "--bundle", str(bundle_path)]
        command += ["--output", str(tmp_path / "out"), "--no-retry", "--threads", "1"]
        for arguments in (
            [server.url, "--max-frames", "2", "--jsonl", "-"],
            [f"rtsp://{login}@127.0.0.1:{free_port()}/clock"],
            [f"rtsp:/{login}@127.0.0.1"],
            [f"rtsp://{login}@127.0.0.1/clock", "--nonsense", f"--rtsp://{login}@x"],
        ):
            result = subprocess.run([*command, *arguments], capture_output=True, text=True)
            assert SECRET not in result.stdout + result.stderr
        names = [str(path) for path in (tmp_path / "out").iterdir()]
        texts = [path.read_bytes() for path in (tmp_path / "out").glob("*.json")]
    assert names and SECRET not in "".join(names)
    assert texts and SECRET.encode() not in b"".join(texts)
