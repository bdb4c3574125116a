"""Coverage-guided fuzzing of what reads bytes from the other end: `Link.receive`, `Tag.unpack`, `split_v1`.

    pip install atheris
    python tests/fuzz/fuzz_link.py -max_total_time=120

Any bytes, in any chops, are accepted or refused with LinkError or MessageError; there is no third result,
and no more is held than the limits allow. Arguments are libFuzzer's. The first byte of an input says how the
rest is chopped and whether it follows a good HELLO, so that inputs reach beyond the first frame quickly.
"""

import struct
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[2] / "kernels"))

with atheris.instrument_imports(include=["cellgate_kernel.link", "cellgate_kernel.message"]):
    from cellgate_kernel import link as links
    from cellgate_kernel import message as messages

LIMITS = links.LinkLimits(max_body_bytes=4096, window_bytes=8192, window_frames=16)
GOOD_HELLO = links.Link(LIMITS).open(b"setup")
MOST_HELD = links.HEADER_BYTES + links.MAX_SETUP_BYTES + len(GOOD_HELLO)


def seeds() -> list[bytes]:
    """One good stream of everything, so that the fuzzer need not find the layout by itself."""
    peer = links.Link(LIMITS)
    opening = peer.open()
    peer.receive(GOOD_HELLO)
    tag = messages.Tag(messages.Channel.SHELL, "execute_request", messages.Status.NONE, b"id")
    body = [tag.pack(), *messages.join_v1(b"shell", [b"{}", b"{}", b"{}", b'{"code":"1"}', b"buffer"])]
    frames = b"".join([*peer.send(body), peer.ping(3), peer.pong(4), *peer.send([b""])])
    acks = struct.pack("<IIQ", 0, links.Kind.ACK, 1)
    return [b"\x00" + opening + frames + acks, b"\x07" + frames + acks, b"\x81" + frames]


def read(data: bytes) -> None:
    if not data:
        return
    how, stream = data[0], data[1:]
    link = links.Link(LIMITS, sent=None if how & 0x40 else 0)
    link.open()
    if how & 0x80:
        link.receive(GOOD_HELLO)
        link.send([b"kept"])
    step = (how & 0x3F) or len(stream) or 1
    try:
        for at in range(0, len(stream), step):
            for event in link.receive(stream[at : at + step]):
                if isinstance(event, links.Message):
                    read_message(event.body)
                elif isinstance(event, links.Hello):
                    send_something(link)
            assert len(link._incoming) <= MOST_HELD
            link.acknowledge()
    except links.LinkError as error:
        assert error.code in links.ERROR_CODES


def send_something(link: links.Link) -> None:
    try:
        link.send([b"out"])
    except (links.WindowFull, ValueError):
        pass  # the peer's HELLO named limits that leave no room


def read_message(body: memoryview) -> None:
    try:
        tag, message = messages.Tag.unpack(body)
        channel, parts = messages.split_v1(message)
    except messages.MessageError as error:
        assert error.code in messages.ERROR_CODES
        return
    assert b"".join(messages.join_v1(channel, [bytes(part) for part in parts])) == message
    assert tag.pack() == body[: len(body) - len(message)]


if __name__ == "__main__":
    for seed in seeds():
        read(seed)
    arguments = sys.argv
    if not any(not argument.startswith("-") for argument in arguments[1:]):
        import tempfile

        folder = tempfile.mkdtemp(prefix="cellgate-fuzz-")
        for number, seed in enumerate(seeds()):
            Path(folder, f"seed{number}").write_bytes(seed)
        arguments = [*arguments, folder]
    atheris.Setup(arguments, read)
    atheris.Fuzz()
