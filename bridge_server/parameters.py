"""What an editor can set, in OpenFX's terms and in plain words: all interfaces come from it.

Names and the keys of choices are stored in people's projects: they are never renamed or given a new
meaning, only added to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from bridge_server.request import GATES, HDR, PROPAGATIONS


class Kind(Enum):
    """The type of a parameter; OpenFX's is called the same behind `OfxParamType`."""

    STRING = "String"
    CHOICE = "Choice"
    DOUBLE = "Double"
    INTEGER = "Integer"
    BOOLEAN = "Boolean"
    PUSH_BUTTON = "PushButton"
    GROUP = "Group"
    PAGE = "Page"


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several. key: what is stored; label: what is shown."""

    key: str
    label: str


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter.

    hint: for an editor who is no programmer
    low, high: what it may be; shown: what a slider goes over
    choices: or what makes them, where the modules that know them are slow to import
    mode: of a string: SingleLine, MultiLine or FilePath
    models: the role of the models, of the catalogue, that it names
    animates: may differ from frame to frame; a host tells its values in `tracks`
    enabled_when: another parameter, and the value at which this one has a meaning
    hosts: the only ones that have it; empty: all
    """

    name: str
    kind: Kind
    label: str
    hint: str
    default: str | float | bool | None = None
    low: float | None = None
    high: float | None = None
    shown: tuple[float, float] | None = None
    choices: tuple[Choice, ...] | Callable[[], tuple[Choice, ...]] = ()
    mode: str = ""
    models: str = ""
    animates: bool = False
    secret: bool = False
    enabled: bool = True
    enabled_when: tuple[str, str | bool] | None = None
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """Parameters that belong together on a page."""

    name: str
    label: str
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the interface, in the order in which it is read."""

    name: str
    label: str
    hint: str
    groups: tuple[Group, ...]


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip that goes in or out."""

    name: str
    label: str
    hint: str
    optional: bool = False
    components: tuple[str, ...] = ("RGBA", "RGB")


_SEED_MOST, _FRAME_MOST = 2**31 - 1, 10_000_000


def _text(
    name: str, label: str, hint: str, mode: str = "SingleLine", default: str = "", **more: Any
) -> Parameter:
    return Parameter(name, Kind.STRING, label, hint, default, mode=mode, **more)


def _lines(name: str, label: str, hint: str, **more: Any) -> Parameter:
    return _text(name, label, hint, "MultiLine", **more)


def _switch(name: str, label: str, hint: str, default: bool, **more: Any) -> Parameter:
    return Parameter(name, Kind.BOOLEAN, label, hint, default, **more)


def _whole(
    name: str,
    label: str,
    hint: str,
    default: int,
    span: tuple[int, int],
    shown: tuple[int, int],
    **more: Any,
) -> Parameter:
    return Parameter(name, Kind.INTEGER, label, hint, default, *span, shown, **more)


def _number(
    name: str,
    label: str,
    hint: str,
    default: float,
    span: tuple[float, float],
    shown: tuple[float, float] | None = None,
    **more: Any,
) -> Parameter:
    shown = shown or span
    return Parameter(name, Kind.DOUBLE, label, hint, default, *span, shown, **more)


def _choice(
    name: str,
    label: str,
    hint: str,
    choices: tuple[Choice, ...] | Callable[[], tuple[Choice, ...]],
    default: str = "",
    **more: Any,
) -> Parameter:
    return Parameter(name, Kind.CHOICE, label, hint, default, choices=choices, **more)


def _button(name: str, label: str, hint: str) -> Parameter:
    return Parameter(name, Kind.PUSH_BUTTON, label, hint)


def _labelled(keys: tuple[str, ...], labels: dict[str, str]) -> tuple[Choice, ...]:
    return tuple(Choice(key, labels.get(key, key)) for key in keys)


def _presets() -> tuple[Choice, ...]:
    from fresco.samplers import presets

    named = tuple(Choice(name, preset.title) for name, preset in presets().items())
    return (Choice("", "As the model recommends"), *named)


def _samplers() -> tuple[Choice, ...]:
    from fresco.samplers import SAMPLERS

    labels = {
        "ddpm": "DDPM (the method's own)",
        "ddim": "DDIM",
        "ddim_trailing": "DDIM, for few steps",
        "euler": "Euler",
        "euler_a": "Euler ancestral",
        "euler_a_trailing": "Euler ancestral, for few steps",
        "euler_trailing": "Euler, for few steps",
        "dpmpp_2m": "DPM++ 2M",
        "dpmpp_2m_karras": "DPM++ 2M Karras",
        "unipc": "UniPC",
        "lcm": "LCM",
        "tcd": "TCD",
    }
    return (Choice("", "As the model recommends"), *_labelled(tuple(SAMPLERS), labels))


def _controls() -> tuple[Choice, ...]:
    from fresco.control import ESTIMATORS

    labels = {
        "canny": "Hard edges (canny)",
        "tile": "Colours and light (tile)",
        "depth": "Depth",
        "softedge": "Soft edges",
        "hed": "Soft edges (HED)",
        "lineart": "Line art",
    }
    usual = (Choice("auto", "As the model recommends"), Choice("none", "Nothing"))
    return (*usual, *_labelled(tuple(ESTIMATORS), labels))


def _codecs() -> tuple[Choice, ...]:
    from bridge_server.media.formats import PROFILES

    labels = {
        "h264": "H.264",
        "hevc": "HEVC (H.265)",
        "prores-422-hq": "ProRes 422 HQ",
        "prores-4444": "ProRes 4444, with alpha",
        "dnxhr-hq": "DNxHR HQ, 8 bit",
        "dnxhr-hqx": "DNxHR HQX, 10 bit",
        "dnxhr-444": "DNxHR 444",
        "ffv1": "FFV1, lossless",
        "png": "PNG sequence",
        "tiff": "TIFF sequence",
        "exr": "OpenEXR sequence",
    }
    return (Choice("", "Like the source"), *_labelled(tuple(PROFILES), labels))


CLIPS = (
    Clip("Source", "Source", "The clip to restyle."),
    Clip("Mask", "Mask", "Where the style shows: white. Black stays untouched.", True, ("Alpha",)),
    Clip(
        "Subject",
        "Subject",
        "What is not background: white. The background is then kept calmer.",
        True,
        ("Alpha",),
    ),
    Clip("Output", "Output", "The restyled clip."),
)

_STYLE = Page(
    "page_style",
    "Style",
    "What the clip is to look like.",
    (
        Group(
            "group_run",
            "Run",
            (
                _button("stylise", "Stylise", "Restyle the clip with what is set here."),
                _button(
                    "approve", "Looks good, go on", "Go on after the pictures that were shown."
                ),
                _button(
                    "cancel", "Stop", "Stop the work. What is done is kept for the next start."
                ),
                _button("refresh", "Refresh", "Ask the bridge again how far it is."),
                _text("status", "Status", "What the bridge is doing right now.", enabled=False),
            ),
        ),
        Group(
            "group_look",
            "Look",
            (
                _lines(
                    "prompt",
                    "Style",
                    "Describe the picture that you want, in English: the style first, then what is "
                    'seen. For example: "watercolour painting of a street in the rain".',
                    animates=True,
                ),
                _lines(
                    "negative",
                    "Avoid",
                    'What you do not want to see, for example: "blurry, text". May stay empty.',
                ),
                _switch(
                    "auto_strength",
                    "Recommended strength",
                    "Use the strength that suits the model. Switch it off to set your own.",
                    True,
                ),
                _number(
                    "strength",
                    "Strength",
                    "How far the result may leave the source. 0 is the source itself; at 1 only "
                    "its layout remains.",
                    0.75,
                    (0.0, 1.0),
                    animates=True,
                    enabled_when=("auto_strength", False),
                ),
                _whole(
                    "seed",
                    "Variation",
                    "Another number gives another picture in the same style. The same number "
                    "always gives the same picture.",
                    0,
                    (0, _SEED_MOST),
                    (0, 1000),
                    animates=True,
                ),
            ),
        ),
        Group(
            "group_model",
            "Model",
            (
                _text(
                    "model",
                    "Model",
                    "Which model paints. fresco-draft comes with the program and is for trying "
                    "things out; others are better and must be downloaded once.",
                    default="fresco-draft",
                    models="base",
                ),
                _choice(
                    "preset",
                    "Speed",
                    "Fewer steps are faster and a little rougher. Some need an add-on, which the "
                    "program names if it is missing.",
                    _presets,
                ),
                _lines(
                    "loras",
                    "Style add-ons (LoRA)",
                    "One in each line: its name, and after a colon how strong it is. "
                    "For example: ink-wash:0.8",
                    models="lora",
                ),
                _lines(
                    "pictures",
                    "Pictures as a model of style",
                    "One adapter in each line, with the pictures whose style it takes: "
                    "ip-adapter-sd15:0.6=painting.png,other.png",
                    models="ip-adapter",
                ),
                _lines(
                    "embeddings",
                    "Words of your own (embeddings)",
                    "Textual inversions by name, one in each line.",
                    models="embedding",
                ),
                _text(
                    "vae",
                    "Colour decoder (VAE)",
                    "Replaces the part of the model that turns its work into colours. Empty is "
                    "what the model recommends.",
                    models="vae",
                ),
            ),
        ),
        Group(
            "group_sampling",
            "Sampling",
            (
                _choice(
                    "sampler",
                    "Sampler",
                    "How the picture is worked out. Leave it as recommended unless you know why.",
                    _samplers,
                ),
                _whole(
                    "steps",
                    "Steps",
                    "More steps take longer and are a little finer. 0 is what the speed or the "
                    "model recommends.",
                    0,
                    (0, 1000),
                    (0, 50),
                ),
                _number(
                    "guidance",
                    "Closeness to the words",
                    "How strictly the description is followed. Too much looks burnt. 0 is what the "
                    "speed or the model recommends.",
                    0.0,
                    (0.0, 100.0),
                    (0.0, 15.0),
                ),
                _whole(
                    "clip_skip",
                    "Skip last text layers",
                    "1 skips none. Some models for drawings and anime want 2.",
                    1,
                    (1, 12),
                    (1, 2),
                ),
            ),
        ),
    ),
)

_STRUCTURE = Page(
    "page_structure",
    "Structure",
    "What of the source must stay.",
    (
        Group(
            "group_control",
            "Held on to",
            (
                _choice(
                    "control",
                    "Keep from the source",
                    "What holds the new picture in place: edges keep shapes and free the colours; "
                    "colours and light keep the mood and free the strokes.",
                    _controls,
                    "auto",
                ),
                _number(
                    "control_scale",
                    "How firmly",
                    "Of what is chosen above. Lower it if the style cannot get through, raise it "
                    "if shapes drift.",
                    1.0,
                    (0.0, 2.0),
                ),
                _lines(
                    "more_controls",
                    "Further ones",
                    "For several at once, or for maps of your own; one in each line: depth:0.5, or "
                    "depth:0.5:MODEL=maps.mp4",
                    models="controlnet",
                ),
            ),
        ),
        Group(
            "group_mask",
            "Mask and colour",
            (
                _number(
                    "feather",
                    "Soft edge of the mask",
                    "How wide the mask's edge fades, in pixels of the source.",
                    0.0,
                    (0.0, 10_000.0),
                    (0.0, 100.0),
                ),
                _switch(
                    "preserve_colour",
                    "Keep the source's colours",
                    "Give every shot the colours that it had.",
                    False,
                ),
                _whole(
                    "size",
                    "Working size",
                    "The short side of the picture while the model works, in pixels. The result "
                    "has the source's size in any case. 0 is what the model was made for.",
                    0,
                    (0, 8192),
                    (0, 1536),
                ),
            ),
        ),
    ),
)

_KEYFRAMES = Page(
    "page_keyframes",
    "Keyframes",
    "The frames that the model paints; the others follow them.",
    (
        Group(
            "group_keyframes",
            "Which frames",
            (
                _choice(
                    "keyframe_mode",
                    "Keyframes",
                    "Found: more where much moves. Regular: at a fixed distance. Listed: exactly "
                    "yours.",
                    (
                        Choice("auto", "Found by what happens"),
                        Choice("every", "Regular"),
                        Choice("list", "Listed"),
                    ),
                    "auto",
                ),
                _whole(
                    "keyframe_shortest",
                    "Closest",
                    "Found keyframes are at least this many frames apart.",
                    10,
                    (1, _FRAME_MOST),
                    (1, 60),
                    enabled_when=("keyframe_mode", "auto"),
                ),
                _whole(
                    "keyframe_longest",
                    "Furthest",
                    "Found keyframes are at most this many frames apart.",
                    30,
                    (1, _FRAME_MOST),
                    (1, 120),
                    enabled_when=("keyframe_mode", "auto"),
                ),
                _whole(
                    "keyframe_every",
                    "Distance",
                    "A keyframe after every so many frames.",
                    12,
                    (1, _FRAME_MOST),
                    (1, 60),
                    enabled_when=("keyframe_mode", "every"),
                ),
                _text(
                    "keyframe_list",
                    "Frames",
                    "The keyframes, counted from 0 at the source's first frame: 0,24,60",
                    enabled_when=("keyframe_mode", "list"),
                ),
                _whole(
                    "batch",
                    "Painted together",
                    "How many keyframes the model sees at once. More agree better and need more "
                    "memory.",
                    8,
                    (3, 1024),
                    (3, 16),
                ),
            ),
        ),
        Group(
            "group_cuts",
            "Cuts",
            (
                _choice(
                    "cut_mode",
                    "Cuts in the clip",
                    "Nothing is carried over a cut, so a missed one smears.",
                    (
                        Choice("auto", "Found"),
                        Choice("none", "There are none"),
                        Choice("list", "Listed"),
                    ),
                    "auto",
                ),
                _text(
                    "cut_list",
                    "First frames of later shots",
                    "Counted from 0 at the source's first frame: 96,140",
                    enabled_when=("cut_mode", "list"),
                ),
                _switch(
                    "shared_style",
                    "Same style in all shots",
                    "Later shots look at the first one, so that they match.",
                    True,
                ),
            ),
        ),
        Group(
            "group_changes",
            "Changes and stops",
            (
                _lines(
                    "tracks",
                    "Over time",
                    "What changes during the clip, one in each line; it holds from its frame on, "
                    "until the next line of its kind: prompt@48=snow, negative@48=people, "
                    "strength@60=0.5, seed@72=9",
                ),
                _lines(
                    "changes",
                    "Changed keyframes",
                    "What is different at single keyframes, one in each line: "
                    "prompt@48=rainy street, strength@60=0.5, seed@72=9, or a frame that you "
                    "painted: painted@0=C:/frame.png",
                ),
                _choice(
                    "until",
                    "Show me first",
                    "Stop and wait for your approval, so that a long clip is not made in vain.",
                    _labelled(
                        GATES,
                        {
                            "first_frame": "The first keyframe",
                            "keyframes": "All keyframes",
                            "done": "Nothing, make the whole clip",
                        },
                    ),
                    "done",
                ),
                _choice(
                    "propagation",
                    "Between keyframes",
                    "How the style is carried to the frames between.",
                    _labelled(
                        PROPAGATIONS,
                        {
                            "auto": "What suits",
                            "flow": "Along the motion (fast)",
                            "patch": "By patches (keeps brush strokes)",
                        },
                    ),
                    "auto",
                ),
            ),
        ),
    ),
)

_FRESCO = Page(
    "page_fresco",
    "FRESCO",
    "How neighbouring keyframes are made to agree. Good as it is; for experiments.",
    (
        Group(
            "group_attention",
            "Looking at each other",
            (
                _switch(
                    "spatial",
                    "Structure from the source",
                    "At the beginning, places that are alike in the source stay alike.",
                    True,
                ),
                _whole(
                    "spatial_steps",
                    "For so many steps",
                    "How many steps, from the first, follow the source's structure.",
                    1,
                    (0, 1000),
                    (0, 10),
                    enabled_when=("spatial", True),
                ),
                _switch(
                    "cross_frame",
                    "Look at other keyframes",
                    "Keyframes borrow from each other, so that they have one style.",
                    True,
                ),
                _switch(
                    "temporal",
                    "Follow the motion",
                    "What moves keeps its texture on the way.",
                    True,
                ),
                _switch(
                    "auto_temporal_until",
                    "Recommended length",
                    "Follow the motion as long as suits the model.",
                    True,
                    enabled_when=("temporal", True),
                ),
                _number(
                    "temporal_until",
                    "Until",
                    "0 follows the motion to the last step, 1 not at all.",
                    0.35,
                    (0.0, 1.0),
                    enabled_when=("auto_temporal_until", False),
                ),
            ),
        ),
        Group(
            "group_optimisation",
            "Making features agree",
            (
                _switch(
                    "temporal_loss",
                    "Along the motion",
                    "Pull what is the same thing in two keyframes together.",
                    True,
                ),
                _number(
                    "spatial_weight",
                    "Weight of the structure",
                    "How much the source's structure counts beside the motion; 0 is not at all.",
                    100.0,
                    (0.0, 100_000.0),
                    (0.0, 200.0),
                ),
                _whole(
                    "iterations",
                    "Rounds",
                    "More rounds agree better and take longer; 0 leaves this part out.",
                    20,
                    (0, 1000),
                    (0, 40),
                ),
                _number(
                    "optimise_until",
                    "Share of the steps",
                    "In how much of the work, from its beginning, this is done.",
                    0.75,
                    (0.0, 1.0),
                ),
                _number(
                    "lr",
                    "Pace",
                    "How far one round goes. Too far is restless.",
                    0.2,
                    (0.000001, 100.0),
                    (0.01, 1.0),
                ),
                _number(
                    "adain_epsilon",
                    "Softening",
                    "Steadies places without texture when colours are matched.",
                    1.0,
                    (0.000000001, 100.0),
                    (0.01, 2.0),
                ),
            ),
        ),
        Group(
            "group_background",
            "Background and grain",
            (
                _switch(
                    "smooth_background",
                    "Calm the background",
                    "Smooth what lies behind the subject. Needs the clip Subject.",
                    True,
                ),
                _text(
                    "smooth_steps",
                    "When",
                    "At which points of the work, as shares of its steps: 0.8, 0.85",
                    default="0.8, 0.85",
                    enabled_when=("smooth_background", True),
                ),
                _switch(
                    "repeat_start_noise",
                    "Same grain at the start",
                    "All keyframes begin from the same noise, which makes them agree.",
                    True,
                ),
                _switch(
                    "auto_repeat_step_noise",
                    "Recommended grain",
                    "The noise of the steps is repeated or not, as suits the model.",
                    True,
                ),
                _switch(
                    "repeat_step_noise",
                    "Same grain in each step",
                    "The noise of the steps is repeated too; may stick to the screen.",
                    False,
                    enabled_when=("auto_repeat_step_noise", False),
                ),
            ),
        ),
    ),
)

_OUTPUT = Page(
    "page_output",
    "Output",
    "Which frames, and what is written.",
    (
        Group(
            "group_file",
            "File",
            (
                _text(
                    "output",
                    "Write to",
                    "The file to write, or a folder. Empty is beside the source.",
                    "FilePath",
                ),
                _choice(
                    "codec",
                    "Codec",
                    "What the result is stored as.",
                    _codecs,
                ),
                _choice(
                    "hdr",
                    "HDR sources",
                    "The models know no HDR. Refusing is safe; tone-mapping makes SDR of it.",
                    _labelled(HDR, {"refuse": "Refuse", "tone-map": "Tone-map"}),
                    "refuse",
                ),
                _switch(
                    "accept_alpha",
                    "Transparency may be lost",
                    "Allow a codec without alpha for a source that has it.",
                    False,
                ),
                _switch(
                    "accept_bit_depth",
                    "Bit depth may be lost",
                    "Allow a codec with fewer bits than the source.",
                    False,
                ),
                _switch(
                    "accept_pixel_aspect",
                    "Pixel aspect may be lost",
                    "Allow a file format that cannot store pixels that are not square.",
                    False,
                ),
                _switch(
                    "overwrite",
                    "Replace the file",
                    "Write over a result that is there already. A source is never written over.",
                    False,
                ),
            ),
        ),
        Group(
            "group_range",
            "Frames",
            (
                _whole(
                    "start",
                    "First frame",
                    "Of the source, counted from 0. An editor's trim sets it.",
                    0,
                    (0, _FRAME_MOST),
                    (0, 10_000),
                ),
                _whole(
                    "stop",
                    "Up to frame",
                    "The first frame of the source that is left out. 0 is up to the end.",
                    0,
                    (0, _FRAME_MOST),
                    (0, 10_000),
                ),
                _whole(
                    "handles",
                    "Handles",
                    "So many frames more at both ends, for transitions.",
                    0,
                    (0, _FRAME_MOST),
                    (0, 50),
                ),
                _text(
                    "rate",
                    "Frame rate of images",
                    "Of an image sequence that does not say its own: 24, 29.97, 30000/1001.",
                ),
            ),
        ),
        Group(
            "group_openfx",
            "In this host",
            (
                _choice(
                    "mode",
                    "Frames come",
                    "How the frames reach the bridge. Reading the file is safest, where there is "
                    "one.",
                    (
                        Choice("file", "From the file"),
                        Choice("record", "While the host plays them"),
                        Choice("button", "When Stylise is pressed"),
                    ),
                    "file",
                    hosts=("openfx",),
                ),
                _text(
                    "job_id",
                    "Job",
                    "The bridge's name of what was made; leave it alone.",
                    hosts=("openfx",),
                ),
                _whole(
                    "generation",
                    "Generation",
                    "Changes when there is something new to show.",
                    0,
                    (0, _SEED_MOST),
                    (0, 100),
                    secret=True,
                    hosts=("openfx",),
                ),
            ),
        ),
    ),
)

PAGES = (_STYLE, _STRUCTURE, _KEYFRAMES, _FRESCO, _OUTPUT)
#: Every parameter that has a value or is pressed, in order.
PARAMETERS = {
    each.name: each for page in PAGES for group in page.groups for each in group.parameters
}
