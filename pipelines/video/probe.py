"""Probes a video file: whether it can be used, how many frames it has, and which packets give them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import av.error
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from pipelines.bitstreams.mpeg4 import VOP, mpeg4_pictures, parse_video_object_layer
from pipelines.bitstreams.packet_flags import DROPPABLE, KEY, START
from pipelines.containers.completeness import Completeness, completeness
from pipelines.containers.demuxer import PacketList, list_packets
from pipelines.containers.ffmpeg_errors import reason_of
from pipelines.containers.file_checks import (
    AVI_HEAD,
    DOES_NOT_DECODE,
    MAX_PIXELS,
    NEEDS_MEMORY,
    TOO_LARGE,
    TRUNCATED,
    check_regular,
    check_size,
    is_avi,
)
from pipelines.containers.formats.verdict import INDEX_CUT, INDEX_MISSING
from pipelines.containers.io_retries import USUAL_RETRIES, with_retries
from pipelines.containers.notes import (
    CONCEALED_ERRORS,
    DAMAGED,
    FEWER_FRAMES,
    FROM_START,
    INTERLACED,
    ROTATED,
    UNEVEN_TIMES,
    notes_of,
)
from pipelines.containers.opening import OpenVideo, open_video
from pipelines.errors import VideoError
from pipelines.file_bytes import FileBytes
from pipelines.video.packets import PacketTable
from pipelines.video.parameters import StreamParameters
from pipelines.video.parts import part_of
from pipelines.video.proof import FullDecode, Samples, decode_fully, mismatch
from pipelines.video.record import Span, VideoRecord

# Codecs in which some packets give no frame though nothing is damaged.
_WITH_HIDDEN = ("vp8", "vp9", "av1")
# Codecs whose decoders leave in a damaged picture what was in their memory before, and do not say so.
_SILENT = ("mjpeg", "vp8")
# Notes that may come from damage.
_SUSPICIOUS = frozenset([UNEVEN_TIMES, FEWER_FRAMES, INDEX_CUT, INDEX_MISSING])
_WATCH_SECONDS = 0.5
_MOST_FRAMES = 1000  # a second; with more than that, a rate is looked at twice
OnShare = Callable[[float], None]


def probe_video(
    path: str | Path,
    *,
    root: str | Path = "",
    allow_partial: bool = False,
    max_pixels: int = MAX_PIXELS,
    span: Span | None = None,
    uncut: bool = False,
    threads: int = 1,
    watch: OnShare | None = None,
    full: bool = False,
) -> VideoRecord:
    """The record of the video at `root`/`path`, with the number of frames that decoding the whole file gives.

    With a `span` (begin, end) the record has only the frames that are shown from `begin` on and before `end`, in
    seconds from the start of the file, as players count; see containers.clock. If the file is hardly longer than the
    span, it is assumed to be cut to it already, and the record has all frames, unless it is known to be `uncut`.

    Where the headers of all packets tell, they give the number of frames: in AVI for MPEG-4 part 2, in a sound MP4 for
    H.264, HEVC, VP9 and AV1, in a sound Matroska or WebM for the last two. All other files are decoded, and
    some of their frames are read again by the record, to prove that it gives the same pixels; with `full` so are those
    whose headers tell. With `allow_partial` a truncated or damaged file is used as far as it decodes. A file that must
    be decoded is decoded by `threads`, and
    `watch` is called now and then with the share of it that is done, 0 to 1. This process decodes, and what crashes the
    decoder ends it. Raises VideoError with a short reason if the file can't be used, such as one whose frames have more
    than `max_pixels`.
    """
    name = str(path)
    place = str(Path(root) / name) if str(root) else name
    tries = _Tries(place)
    asked = _Asked(name, str(root), allow_partial, max_pixels, span, uncut, threads, watch, full)
    try:
        return with_retries(lambda: tries.of(lambda: _probed(place, asked)), USUAL_RETRIES)
    except MemoryError as error:
        raise VideoError(place, NEEDS_MEMORY, reason_of(error), passing=True) from error
    except OSError as error:
        raise VideoError(place, "can't be read", reason_of(error)) from error


class _Asked(NamedTuple):
    """The arguments of probe_video."""

    name: str
    root: str
    allow_partial: bool
    max_pixels: int
    span: Span | None
    uncut: bool
    threads: int
    watch: OnShare | None
    full: bool


@dataclass
class _Tries:
    """The tries to probe a file. That it can't be used is believed once two tries say so, with all of it readable.

    FFmpeg hides some errors of the disk: it takes the place where one came for the end of the file.
    """

    path: str
    has_failed: bool = False

    def of(self, probe: Callable[[], VideoRecord]) -> VideoRecord:
        """What `probe` gives. Raises VideoError if the file can't be used, OSError if it can't be read."""
        while True:
            try:
                return probe()
            except VideoError as error:
                failed = error
            except MemoryError:
                raise
            except av.error.FFmpegError as error:
                failed = VideoError(self.path, "not a readable video", reason_of(error))
            if failed.is_passing or failed.reason == TOO_LARGE or self.has_failed:
                raise failed
            if Path(self.path).is_file():
                with FileBytes(self.path) as file:
                    file.checksum()
            self.has_failed = True


def _probed(full: str, asked: _Asked) -> VideoRecord:
    """The record of a file. Raises VideoError, FFmpegError or OSError if there is none."""
    status = check_regular(full)
    with FileBytes(full) as file:
        # If FFmpeg is told the format, opening takes a third less time.
        form = "avi" if is_avi(bytes(file.read(0, AVI_HEAD))) else None
        with open_video(full, form=form, max_pixels=asked.max_pixels) as video:
            probe = _Probe.of(full, video, file, asked.allow_partial, asked.max_pixels)
            probe.threads, probe.watch, probe.full = asked.threads, asked.watch, asked.full
        probe.base.update(path=asked.name, size=status.st_size, mtime_ns=status.st_mtime_ns, checksum=file.checksum())
        record = probe.record(file, asked.root)
    if asked.span is None:
        return record
    return part_of(full, record, probe.packets.stamps, asked.span, uncut=asked.uncut, damaged=probe.damaged)


def _rate(stream: VideoStream) -> Fraction:
    """The frames a second; 0 where nothing tells. Of a raw DV stream FFmpeg gives the ticks a second as the average."""
    average = stream.average_rate or Fraction(0)
    is_clock = stream.time_base is not None and average > _MOST_FRAMES and average * stream.time_base == 1
    return (None if is_clock else average) or stream.guessed_rate or Fraction(0)


@dataclass
class _Probe:
    """What the container says of a video: `base` are fields of its record, `size` its (height, width) in px."""

    path: str
    form: str
    base: dict[str, object]
    packets: PacketList
    extradata: bytes
    parameters: StreamParameters
    whole: Completeness
    notes: list[str]
    allow_partial: bool
    max_pixels: int
    threads: int = 1
    watch: OnShare | None = None
    full: bool = False  # it is decoded whatever its headers tell
    damaged: tuple[int, ...] = ()  # numbers of the frames that the decoder marks
    vops: PacketTable | None = None  # of MPEG-4 part 2, by its headers
    counts: bool = False  # these headers tell the number of frames, whatever else is damaged

    @classmethod
    def of(cls, path: str, video: OpenVideo, file: FileBytes, allow_partial: bool, max_pixels: int) -> _Probe:
        """What the open container says. Raises VideoError if it is truncated, unless `allow_partial` is given."""
        stream, context = video.stream, video.stream.codec_context
        parameters = StreamParameters.of_context(context)
        whole = completeness(path, video.format, ((entry.pos, entry.size) for entry in stream.index_entries))
        packets = list_packets(video, path, file)
        if whole.missing and not allow_partial:
            raise VideoError(path, TRUNCATED, whole.missing)
        base: dict[str, object] = {
            "codec": context.codec.canonical_name,
            "decoder": context.name,
            "fps": float(_rate(stream)),
            "container": video.format,
        }
        return cls(
            path, video.container.format.name, base, packets, context.extradata or b"",
            replace(parameters, changes=parameters.changes or packets.changes), whole,
            notes_of(path, video, packets, whole), allow_partial, max_pixels,
        )  # fmt: skip

    def record(self, file: FileBytes, root: str) -> VideoRecord:
        """The record of the whole file. Raises VideoError if it can't be used."""
        size = (self.parameters.height, self.parameters.width)
        if self.base["codec"] == "mpeg4":
            self.vops = self._list_vops(file)
            if self.vops is not None and self.packets.indexed and not self.full:
                record = self._from_vops(self.vops) if self.counts else self._from_packed(self.vops)
                if record is not None:
                    return record
            layer = parse_video_object_layer(self.extradata + self.packets.first)
            size = (layer.height, layer.width) if layer else size
        check_size(self.path, size[1], size[0], self.max_pixels)
        if self._tells_all and self.packets.pts is not None and not self.full:
            giving = self.packets.giving
            shown = giving[np.argsort(self.packets.pts[giving], kind="stable")]
            record = self._proved([self._table(shown)], decode_fully(self.path, limit=1), root)
            if record is not None:
                return record
        return self._from_decode(root)

    @property
    def _tells_all(self) -> bool:
        """Whether it is known which packets give frames, in the order of their time stamps."""
        sound = self.packets.sound and len(self.packets.giving) > 0
        is_known = sound and not self.whole.missing and bool(self.packets.flags[0] & START)
        # Packets may be lost. Of these codecs a decoder may give other frames from then on, without an error.
        is_suspicious = self.base["codec"] in _WITH_HIDDEN and not _SUSPICIOUS.isdisjoint(self.notes)
        return is_known and not is_suspicious and self.base["codec"] not in _SILENT

    def _list_vops(self, file: FileBytes) -> PacketTable | None:
        """The table of an MPEG-4 part 2 stream by the headers of its pictures; None if these don't say enough."""
        packets = self.packets
        if not packets.addressable or packets.hidden or packets.changes:
            return None
        # The bytes before the first picture go into the extradata, so that a decoder that begins later also gets them.
        # They name the encoder, for instance, which decides the inverse transform.
        header = packets.first[: packets.first.find(VOP)] if VOP in packets.first else b""
        extradata = self.extradata if header in self.extradata else self.extradata + header
        packed = any(mark in extradata and b"p" in extradata.split(mark, 1)[1][:16] for mark in (b"DivX", b"divx"))
        pictures = mpeg4_pictures(file, packets.offset, packets.size, extradata, packed=packed)
        if pictures is None or pictures.frame_packet is None:
            return None
        if not pictures.sound:
            return None
        self.extradata, self.counts = extradata, pictures.counted
        return PacketTable(pictures.offset, pictures.size, pictures.flags, pictures.frame_packet)

    def _from_vops(self, table: PacketTable) -> VideoRecord:
        """The record of an MPEG-4 part 2 stream in an AVI whose index is right: its headers say all."""
        layer = parse_video_object_layer(self.extradata)
        assert layer is not None
        check_size(self.path, layer.width, layer.height, self.max_pixels)
        return self._made(
            table, FullDecode(height=layer.height, width=layer.width, pix_fmt=self.parameters.pix_fmt or "yuv420p")
        )

    def _from_packed(self, table: PacketTable) -> VideoRecord | None:
        """The record of a stream with packed pictures by its headers; None if a full decode shows damage."""
        check_size(self.path, self.parameters.width, self.parameters.height, self.max_pixels)
        watch = self._watch_packets()
        facts = decode_fully(self.path, form="avi", threads=self.threads, samples="none", watch=watch)
        is_sound = not facts.error and not facts.corrupt and not self.whole.missing
        return self._made(table, facts) if is_sound and len(facts.packets) == table.num_frames else None

    def _from_decode(self, root: str) -> VideoRecord:
        """The record by decoding the whole file, in the fastest way to read it that gives the same frames."""
        form = "avi" if self.form == "avi" else None
        samples: Samples = "all" if self.base["codec"] in _SILENT else "some"
        watch = self._watch_packets()
        facts = decode_fully(self.path, form=form, threads=self.threads, samples=samples, watch=watch)
        if facts.error and not self.allow_partial:
            raise VideoError(self.path, DOES_NOT_DECODE, f"after frame {len(facts.packets)}: {facts.error}")
        if not self.whole.missing:
            self._note_damage(facts)
        else:
            # Others than the last packet are whole, even if the demuxer marks all that lie in a part that is cut.
            facts.end_before(self.packets.corrupt & {len(self.packets.offset) - 1})
        if not facts.packets:
            raise VideoError(self.path, "no frame decodes", self.whole.missing)
        record = self._proved(self._tables(facts), facts, root)
        if record is not None:
            return record
        if self.threads > 1:  # several may make other pixels of damage that no decoder tells
            self.threads = 1
            return self._from_decode(root)
        raise VideoError(
            self.path, "decodes differently each time", "no way of reading gives the frames of a full decode"
        )

    def _note_damage(self, facts: FullDecode) -> None:
        """Note what the decode shows of damage, once, though a video may be decoded twice."""
        concealed = bool(facts.corrupt) and not self.packets.corrupt
        note = DAMAGED if facts.error else CONCEALED_ERRORS if concealed else ""
        if note and note not in self.notes:
            self.notes.append(note)

    def _watch_packets(self) -> Callable[[int], None] | None:
        """What to call with the number of decoded packets: it tells `watch`, twice a second at most."""
        if self.watch is None:
            return None
        watch, total, told = self.watch, len(self.packets.offset), monotonic()

        def tell(done: int) -> None:
            nonlocal told
            if monotonic() - told >= _WATCH_SECONDS:
                told = monotonic()
                watch(min(1.0, done / total))

        return tell

    def _tables(self, facts: FullDecode) -> list[PacketTable]:
        """The packet tables by which the frames might be read, the fastest one first."""
        tags, packets, count = facts.tags, self.packets, len(facts.packets)
        counted = self._table(np.arange(count), ordinal=True)
        if facts.corrupt or (packets.corrupt and not self.whole.missing):
            # The decoder hides damage with what it decoded before, whatever that was: it must be the same.
            return [counted]
        tables = []
        if self.vops is not None and (len(self.vops.frame_packet) == count or self.whole.missing):
            tables.append(replace(self.vops, frame_packet=self.vops.frame_packet[:count]))
        if tags is not None and tags.max() < len(packets.offset):
            given = len(packets.offset) - packets.hidden
            if count == given or self.base["codec"] in _WITH_HIDDEN or self.whole.missing:
                tables.append(self._table(tags))
            tables.append(self._table(tags, starts=False))
        return [*tables, counted]

    def _table(self, shown: NDArray[np.int64], *, ordinal: bool = False, starts: bool = True) -> PacketTable:
        """The table of the packets, of which `shown` int64 [F] give the frames.

        Unless decoding `starts` in the middle, it starts at the first packet.
        """
        packets = self.packets
        flags = packets.flags.copy() if len(packets.flags) else np.zeros(len(packets.offset), np.uint8)
        if not starts:
            flags &= KEY
        if self.base["codec"] in ("h264", *_SILENT) and not self._tells_all:
            # Streams that are not in a sound MP4 are often damaged in ways that show only if pictures are left out.
            flags &= ~np.uint8(DROPPABLE)
        flags[0] |= START
        by_offset = packets.addressable and not self.parameters.changes
        ordinal = ordinal or (not by_offset and packets.pts is None)
        pts = None if by_offset else packets.pts if packets.pts is not None else np.zeros(len(flags), np.int64)
        return PacketTable(np.maximum(packets.offset, 0), packets.size, flags, shown, pts, ordinal)

    def _proved(self, tables: list[PacketTable], facts: FullDecode, root: str) -> VideoRecord | None:
        """The record with the first of `tables` by which the frames of the full decode are read; None if by none."""
        for table in tables:
            record = self._made(table, facts)
            if not mismatch(record, facts.samples, root=root):
                return record
        return None

    def _made(self, table: PacketTable, facts: FullDecode) -> VideoRecord:
        found = {
            ROTATED: facts.orientation.code != 0, INTERLACED: facts.is_interlaced, FROM_START: table.ordinal,
        }  # fmt: skip
        self.damaged = tuple(facts.corrupt)
        notes = self.notes + [note for note, holds in found.items() if holds and note not in self.notes]
        return VideoRecord(
            **self.base,  # type: ignore[arg-type]
            num_frames=table.num_frames,
            height=facts.height,
            width=facts.width,
            pix_fmt=facts.pix_fmt,
            extradata=self.extradata,
            table=table.to_bytes(),
            parameters=self.parameters,
            orientation=facts.orientation,
            corrupt=len(facts.corrupt) if facts.is_whole else -1,
            note="; ".join(notes),
        )
