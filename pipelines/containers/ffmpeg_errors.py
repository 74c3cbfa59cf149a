"""What an error of FFmpeg means, in words: the one place that has them."""

from __future__ import annotations

import av.error

# The calls of FFmpeg that PyAV names in an error, and what did not work.
_CALLS = {
    "avcodec_send_packet()": "the decoder refused a packet",
    "avcodec_receive_frame()": "the decoder gave no frame",
    "avcodec_open2": "the decoder could not be started",
}
# Those of FFmpeg's own errors whose words say little; errors of the system keep the system's words.
_WORDS: dict[type[Exception], str] = {
    av.error.InvalidDataError: "invalid data",
    av.error.EOFError: "it ends too early",
    av.error.PatchWelcomeError: "FFmpeg can't decode this form of it yet",
    av.error.ArgumentError: "values that FFmpeg does not take",
    av.error.BugError: "an error in FFmpeg itself",
    av.error.ExternalError: "an error in a library of FFmpeg",
    av.error.UnknownError: "an error that FFmpeg has no name for",
}


def reason_of(error: BaseException) -> str:
    """Why reading or decoding failed, by an `error` of FFmpeg, PyAV or the system: a phrase without numbers and paths.

    Such as "the decoder refused a packet: invalid data", or "No such file or directory".
    """
    if not isinstance(error, av.error.FFmpegError):
        return getattr(error, "strerror", None) or str(error) or type(error).__name__
    words = next((text for kind, text in _WORDS.items() if isinstance(error, kind)), error.strerror)
    call = _CALLS.get(error.filename or "", "")
    return f"{call}: {words}" if call else words or type(error).__name__
