from __future__ import annotations

from pathlib import Path

import av
import av.error
import pytest
from clips import read_stamp, write_audio_only, write_cover_before_video, write_stamped_video
from cut_files import ENCRYPTED, write_layout

from pipelines.containers.file_checks import MAX_PIXELS
from pipelines.containers.formats.taken import ONE_FILE
from pipelines.containers.opening import open_video
from pipelines.errors import VideoError


def test_the_video_is_open_with_its_stream_and_one_thread(tmp_path: Path) -> None:
    with open_video(str(write_stamped_video(tmp_path / "v.mp4", num_frames=4))) as video:
        assert video.format == "mov"
        assert (video.stream.width, video.stream.codec_context.thread_count) == (128, 1)
        assert [read_stamp(f.to_ndarray(format="rgb24")) for f in video.container.decode(video.stream)] == [0, 1, 2, 3]


def test_a_cover_picture_is_not_the_video(tmp_path: Path) -> None:
    path = write_cover_before_video(tmp_path / "v.mp4", num_frames=4)
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "png"  # or this test would test nothing
    with open_video(str(path)) as video:
        assert (video.stream.width, video.stream.height) == (128, 96)


@pytest.mark.parametrize("name", ["rec:1.avi", "http:v.avi", "concat:a|b.avi", "-v.avi", "%03d.avi"])
def test_a_name_is_never_a_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    write_stamped_video(tmp_path / name, num_frames=2)
    monkeypatch.chdir(tmp_path)
    with open_video(name) as video:
        assert video.stream.frames == 2


def test_an_encrypted_video_is_refused_when_it_is_opened_first(tmp_path: Path) -> None:
    path = str(write_layout(tmp_path / "v.mp4", ENCRYPTED, num_frames=4))
    said = r"v\.mp4: encrypted: cenc; make a decrypted copy of it$"
    with pytest.raises(VideoError, match=said), open_video(path, max_pixels=MAX_PIXELS):
        pass
    with open_video(path) as video:  # as for a video that is in an index: its headers are not looked at again
        assert video.stream.frames == 4


def test_an_mp4_that_was_cut_before_the_list_of_its_frames_is_truncated(tmp_path: Path) -> None:
    path = write_stamped_video(tmp_path / "v.mp4", codec="h264", num_frames=24)
    content = path.read_bytes()
    for share in (0.3, 0.9):
        path.write_bytes(content[: int(share * content.index(b"moov"))])
        with (
            pytest.raises(VideoError, match="truncated: its end is missing, and with it the list"),
            open_video(str(path)),
        ):
            pass
    for other in (b"\0\0\0\x08ftyp", b"\0\0\0\x08wide" * 9, bytes(99)):
        path.write_bytes(other)
        with pytest.raises(av.error.InvalidDataError), open_video(str(path)):
            pass


def test_what_holds_no_video_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(VideoError, match=r"a\.mp4: no video stream"),
        open_video(str(write_audio_only(tmp_path / "a.mp4"))),
    ):
        pass
    (tmp_path / "t.avi").write_text("no video")
    with pytest.raises(av.error.FFmpegError), open_video(str(tmp_path / "t.avi")):
        pass


PLAYLISTS = {
    "ffconcat": "ffconcat version 1.0\nfile {}\n",
    "hls": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{}\n#EXT-X-ENDLIST\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\na=x:{}\nm=video 5004 RTP/AVP 96\n",
    "dash": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
    "<Representation id='1'><BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>\n",
}  # fmt: skip


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("name", ["p.avi", "p.m3u8", "p.sdp", "p.mpd"])
def test_text_that_names_other_files_is_no_video(tmp_path: Path, kind: str, name: str) -> None:
    video = write_stamped_video(tmp_path / "v.avi", num_frames=4)
    playlist = tmp_path / name
    playlist.write_text(PLAYLISTS[kind].format(video.name))
    if kind == "ffconcat":
        with av.open(f"file:{playlist}") as container:  # or this test would test nothing
            assert container.format.name == "concat"
    with pytest.raises(VideoError, match=rf"{name}: not a video: .*no video"), open_video(str(playlist)):
        pass


def test_a_name_is_no_pattern_of_pictures(tmp_path: Path) -> None:
    for number in range(3):
        write_stamped_video(tmp_path / f"{number}.jpg", codec="mjpeg", num_frames=1, container="mjpeg")
    (tmp_path / "%d.jpg").write_bytes(b"x" * 99)
    with av.open(f"file:{tmp_path}/%d.jpg") as container:
        assert container.format.name == "image2"  # or this test would test nothing
    with pytest.raises((av.error.FFmpegError, VideoError)), open_video(str(tmp_path / "%d.jpg")):
        pass


def test_all_containers_that_are_taken_are_known_to_an_ffmpeg() -> None:
    names = {part for name in av.formats_available for part in name.split(",")}
    taken = ONE_FILE["format_whitelist"].split(",")
    assert len(taken) == len(set(taken))
    assert len([name for name in taken if name in names]) > 150
    assert not {"concat", "hls", "dash", "sdp", "imf", "image2", "tty", "lavfi", "rtsp", "svg_pipe"} & set(taken)
