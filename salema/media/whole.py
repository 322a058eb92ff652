"""Whether a video file is whole: FFmpeg skips what it cannot parse, and reports nothing."""

import mmap
import re
from pathlib import Path

# Elements of Matroska that hold others, and those that may be in them.
HOLDERS = {bytes.fromhex(name) for name in ("18538067", "1F43B675")}  # segment, cluster
KNOWN = "1A45DFA3 114D9B74 1549A966 1654AE6B 1C53BB6B 1043A770 1254C367 1941A469"
KNOWN += " EC BF E7 A7 AB A3 A0 AF 5854"  # void, check sum; of a cluster: times, blocks
ELEMENTS = HOLDERS | {bytes.fromhex(name) for name in KNOWN.split()}


def cut_short(path: Path, kind: str) -> bool:
    """Whether the file ends before its outermost boxes do (AVI, MP4, MOV, MKV, WebM, GIF)."""
    total = path.stat().st_size
    with path.open("rb") as file:
        if kind == "gif":
            file.seek(-min(total, 64), 2)
            return not file.read().rstrip(b"\0").endswith(b";")
        if kind.startswith("matroska"):
            return _segment_end(file.read(4096)) > total
        at = 0
        while at + 8 <= total:
            file.seek(at)
            head = file.read(16)
            size = 0
            if kind == "avi" and head[:4] == b"RIFF":
                inner = int.from_bytes(head[4:8], "little")
                size = inner + 8 if 0 < inner < 0xFFFFFEF8 else 0
            elif kind.startswith("mov") and head[4:8].isalnum():
                size = int.from_bytes(head[:4], "big")
                size = int.from_bytes(head[8:16], "big") if size == 1 else size
            if size < 8:  # to the end of the file, or not ours to judge
                return False
            at += size
    return at > total + 16  # some writers count their own header twice


def _segment_end(head: bytes) -> int:
    """Where Matroska's segment says it ends; 0 where it does not say."""
    at = head.find(b"\x18\x53\x80\x67") + 4
    if at < 4 or at >= len(head) or not head[at]:
        return 0
    length = 9 - head[at].bit_length()
    size = int.from_bytes(head[at : at + length], "big") & ((1 << 7 * length) - 1)
    return 0 if size == (1 << 7 * length) - 1 else at + length + size


def lost_frames(path: Path, kind: str, decoded: int, promised: int) -> bool:
    """Whether frames are missing in the middle of a file (AVI, MKV, WebM, GIF, TS).

    Its parts must follow each other without a gap. `decoded` frames are those that were found, and
    `promised` those of the header, which is believed only where both agree.
    """
    if kind not in ("gif", "avi", "matroska,webm", "mpegts"):
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            if kind == "gif":
                return _gif_pictures(data) != decoded
            chain = {"avi": _avi, "mpegts": _packets}.get(kind, _matroska)
            return decoded != promised and not chain(data)
        except IndexError:  # the last part is not complete
            return True


def _gif_pictures(data: mmap.mmap) -> int:
    """The number of pictures, -1 if the blocks do not lead to the end."""

    def colors(flags: int) -> int:
        return 3 << ((flags & 7) + 1) if flags & 0x80 else 0

    at, pictures, odd = 13 + colors(data[10]), 0, 0
    while (mark := data[at]) != 0x3B:  # the end
        if mark == 0x2C:  # a picture: position and size, colors, bits of a code
            pictures += 1
            at += 11 + colors(data[at + 9])
        elif mark == 0x21:  # an extension and its kind
            at += 2
        elif mark:
            return -1
        sizes = []
        while size := data[at]:  # blocks of up to 255 bytes
            sizes.append(size)
            at += 1 + size
        at += 1
        odd += mark == 0x2C and len(set(sizes[:-1])) > 1
    # Damage makes some blocks of uneven size, or hides the beginning of a picture in them.
    begun = sum(1 for _ in re.finditer(rb"!\xf9\x04.{4}\0,", data, re.DOTALL))
    return -1 if 0 < odd <= pictures / 2 or begun > pictures else pictures


def _packets(data: mmap.mmap) -> bool:
    """Whether each packet of a transport stream begins where the one before ends."""
    for size in (188, 192, 204):
        for start in range(size):
            if data[start : start + 4 * size : size].count(b"G") == 4:
                return set(data[start::size]) == {ord("G")}
    return False


def _matroska(data: mmap.mmap) -> bool:
    at, end = 0, _segment_end(data[:4096]) or len(data)
    while at < end:
        name = data[at : at + 9 - data[at].bit_length()]
        at += len(name)
        length = 9 - data[at].bit_length()
        if name not in ELEMENTS or length > 8:
            return False
        size = int.from_bytes(data[at : at + length]) & ((1 << 7 * length) - 1)
        at += length + (0 if name in HOLDERS else size)
    return at == end


def _avi(data: mmap.mmap) -> bool:
    """Also whether each picture and sound of the index is there."""
    at, end, indexed, found = 0, 0, 0, 0
    while at + 8 <= len(data) and (at < end or data[at : at + 4] == b"RIFF"):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if name == b"RIFF":
            end = at + 8 + size
        elif name == b"idx1":
            indexed += size // 16
        elif name[:2].isdigit() and name[2:] != b"ix":
            found += 1
        elif not name.rstrip(b" ").isalnum():
            return False
        inside = name == b"RIFF" or data[at + 8 : at + 12] in (b"movi", b"rec ")
        at += 12 if inside else 8 + size + size % 2
    return at <= len(data) + 1 and indexed in (0, found)
