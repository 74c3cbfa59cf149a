"""Reads what the header of an H.264 stream says of its colours (ITU-T H.264, 7.3.2.1.1 and E.1.1)."""

from __future__ import annotations

from pipelines.bitstreams.bits import Bits
from pipelines.bitstreams.nal_units import nal_units, unit_type

_PARAMETER_SET = 7  # nal_unit_type of a sequence parameter set
# Profiles whose parameter sets state the chroma format.
_WITH_CHROMA = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}
_EXTENDED_ASPECT = 255


def states_full_range(extradata: bytes) -> bool:
    """Whether the first sequence parameter set in the header of a stream says that luma has all values of 0..255.

    `extradata` is an avcC box (ISO/IEC 14496-15, 5.3.3.1.2), or a byte stream with start codes.
    """
    if len(extradata) > 8 and extradata[0] == 1:
        extradata = b"\0\0\1" + extradata[8 : 8 + int.from_bytes(extradata[6:8], "big")]
    unit = next((unit for unit in nal_units(extradata, 0) if unit_type("h264", unit) == _PARAMETER_SET), b"")
    try:
        # A byte of 3 after two zeros is there only to prevent a start code.
        return _full_range_flag(Bits(unit[1:].replace(b"\0\0\3", b"\0\0")))
    except EOFError:
        return False


def _full_range_flag(bits: Bits) -> bool:
    profile = bits.take(8)
    bits.take(16)  # constraints, level
    bits.exp_golomb()  # seq_parameter_set_id
    if profile in _WITH_CHROMA:
        _skip_chroma(bits)
    bits.exp_golomb()  # log2_max_frame_num_minus4
    _skip_picture_order(bits)
    bits.exp_golomb()  # max_num_ref_frames
    bits.take(1)  # gaps_in_frame_num_value_allowed_flag
    bits.exp_golomb()  # width
    bits.exp_golomb()  # height
    if not bits.take(1):  # frame_mbs_only_flag
        bits.take(1)
    bits.take(1)  # direct_8x8_inference_flag
    if bits.take(1):  # frame_cropping_flag
        for _ in range(4):
            bits.exp_golomb()
    if not bits.take(1):  # vui_parameters_present_flag
        return False
    if bits.take(1) and bits.take(8) == _EXTENDED_ASPECT:  # aspect_ratio_info_present_flag, aspect_ratio_idc
        bits.take(32)
    if bits.take(1):  # overscan_info_present_flag
        bits.take(1)
    if not bits.take(1):  # video_signal_type_present_flag
        return False
    bits.take(3)  # video_format
    return bool(bits.take(1))


def _skip_chroma(bits: Bits) -> None:
    """Skip chroma format, bit depths and scaling matrices."""
    chroma_format = bits.exp_golomb()
    if chroma_format == 3:
        bits.take(1)  # separate_colour_plane_flag
    bits.exp_golomb()  # bit_depth_luma_minus8
    bits.exp_golomb()  # bit_depth_chroma_minus8
    bits.take(1)  # qpprime_y_zero_transform_bypass_flag
    if not bits.take(1):  # seq_scaling_matrix_present_flag
        return
    for number in range(12 if chroma_format == 3 else 8):
        if bits.take(1):
            _skip_scaling_list(bits, 16 if number < 6 else 64)


def _skip_scaling_list(bits: Bits, length: int) -> None:
    """Skip the steps of a scaling list; a scale of 0 ends it (7.3.2.1.1.1)."""
    scale = 8
    for _ in range(length):
        code = bits.exp_golomb()
        scale = (scale + ((code + 1) // 2 if code % 2 else -(code // 2))) % 256
        if scale == 0:
            return


def _skip_picture_order(bits: Bits) -> None:
    """Skip what says how the display order is coded."""
    order_type = bits.exp_golomb()
    if order_type == 0:
        bits.exp_golomb()  # log2_max_pic_order_cnt_lsb_minus4
    elif order_type == 1:
        bits.take(1)
        bits.exp_golomb()
        bits.exp_golomb()
        for _ in range(bits.exp_golomb()):
            bits.exp_golomb()
