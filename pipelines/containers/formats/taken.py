"""The containers that a file of the user may be: those that hold pictures themselves.

FFmpeg looks at the content of a file, whatever its name is. It would also take text that names other files or addresses
(ffconcat, HLS, DASH, SDP, IMF), a name that stands for many pictures, and what asks a device: none of these is here.
"""

from __future__ import annotations

# FFmpeg's names of its demuxers (ffmpeg -demuxers), of 8.0 and earlier ones.
_CONTAINERS = (
    *("avi", "mov", "matroska", "flv", "live_flv", "kux", "nut", "ogg", "rm", "ivr", "asf", "asf_o", "wtv"),
    *("mpeg", "mpegts", "mpegtsraw", "mpegvideo", "pva", "ty", "nsv", "nuv", "pmp", "lmlm4", "mgsts"),
    *("mxf", "gxf", "lxf", "dv", "dhav", "mtv", "mlv", "cine", "ser", "r3d", "ifv", "xmv", "vividas", "vivo"),
    *("swf", "film_cpk", "filmstrip", "roq", "rpl", "bink", "smk", "flic", "ipmovie", "idcin", "4xm", "wc3movie"),
    *("bethsoftvid", "bfi", "c93", "cdxl", "dsicin", "dxa", "ea", "hnm", "iff", "mm", "moflex", "mv", "mvi", "paf"),
    *("psxstr", "smush", "thp", "tiertexseq", "tmv", "txd", "usm", "vmd", "wsvqa", "yop", "iss", "rl2", "anm", "avs"),
    *("argo_brp", "cdg", "derf", "jv", "kvag", "luodat", "lvf", "pdv", "qcp", "sdr2", "siff", "smjpeg"),
)
_STREAMS = (  # pictures one after the other, without a container
    *("av1", "obu", "ivf", "h261", "h263", "h264", "hevc", "vvc", "evc", "apv", "m4v", "vc1", "vc1test"),
    *("mjpeg", "mjpeg_2000", "mpjpeg", "ingenient", "dirac", "dnxhd", "cavsvideo", "avs2", "avs3"),
    *("yuv4mpegpipe", "v210", "v210x", "bitpacked", "ipu"),
)
_PICTURES = (
    *("gif", "apng", "fits", "jpegxl_anim", "webp", "alias_pix", "brender_pix", "ico"),
    *("bmp_pipe", "cri_pipe", "dds_pipe", "dpx_pipe", "exr_pipe", "gem_pipe", "gif_pipe", "hdr_pipe", "j2k_pipe"),
    *("jpeg_pipe", "jpegls_pipe", "jpegxl_pipe", "jpegxs_pipe", "pam_pipe", "pbm_pipe", "pcx_pipe", "pfm_pipe"),
    *("pgm_pipe", "pgmyuv_pipe", "pgx_pipe", "phm_pipe", "photocd_pipe", "pictor_pipe", "png_pipe", "ppm_pipe"),
    *("psd_pipe", "qdraw_pipe", "qoi_pipe", "sgi_pipe", "sunrast_pipe", "tiff_pipe", "vbn_pipe", "webp_pipe"),
    *("xbm_pipe", "xpm_pipe", "xwd_pipe"),
)
# The options of FFmpeg with which it takes these only, and opens no other file or address for them.
ONE_FILE = {
    "format_whitelist": ",".join((*_CONTAINERS, *_STREAMS, *_PICTURES)),
    "protocol_whitelist": "file",
}
