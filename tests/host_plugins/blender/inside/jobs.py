"""Jobs of strips, from the button to the result on the timeline: jobs.py EXTENSION FOLDER CLIP.

One Blender for all of it: what a user does in one sitting.
"""

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bpy  # isort: split

import stage

EXTENSION, FOLDER, CLIP = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
part = stage.installed(EXTENSION)
watch, properties = part("watch"), part("properties")
told: dict[str, Any] = {}
scene: Any = None


def set_small(strip: Any, **more: Any) -> None:
    """Settings with which a job takes seconds."""
    usual = {"prompt": "oil painting", "size": 64, "steps": 3, "cut_mode": "none"}
    properties.assign(strip, {**usual, "keyframe_mode": "every", "keyframe_every": 4, **more})


def newest() -> Any:
    return list(watch.desk.cards.values())[-1]


def result_of(card: Any) -> Any:
    found = [s for s in stage.strips(scene) if "fresco_bridge" in s]
    return next(s for s in found if card.ticket.job in s["fresco_bridge"])


def done(card: Any) -> Any:
    stage.until(watch, lambda: card.ticket.placed or card.error)
    assert not card.error, str(card.error)
    return result_of(card)


def movie_in_a_saved_file() -> None:
    """A trimmed movie strip, in a file that is saved; above it something is in the way."""
    global scene
    scene = stage.timeline()
    bpy.ops.wm.save_as_mainfile(filepath=str(FOLDER / "film ü.blend"))
    strip = stage.movie(scene, CLIP, 2, 101, before=2, after=1)
    stage.movie(scene, CLIP, 3, 104)
    stage.only(scene, strip)
    set_small(strip)
    assert bpy.ops.fresco.stylise() == {"FINISHED"}
    card = newest()
    result = done(card)
    told["movie"] = {
        **stage.described(result),
        "original muted": strip.mute,
        "path kept": result.filepath,
        "rendered": stage.rendered(scene, result, FOLDER / "seen movie"),
        "pictures": sorted(card.pictures),
        "words": [part("panels").words(card), part("panels").styled_by(card)],
    }
    bpy.ops.fresco.insert()
    before = len(stage.strips(scene))
    at_work, watch.at_work = watch.at_work, lambda: True  # as if Blender rendered the film
    stage.until(watch, lambda: card.arrived)
    watch.tick()
    told["movie"]["added meanwhile"] = len(stage.strips(scene)) - before
    watch.at_work = at_work
    stage.until(watch, lambda: len(stage.strips(scene)) > before)
    told["movie"]["again"] = stage.described(scene.sequence_editor.active_strip)["channel"]


def keyframes_then_the_rest() -> None:
    """The gate, a keyframe done again at the playhead, and on."""
    strip = stage.movie(scene, CLIP, 10, 200)
    set_small(strip, prompt="pencil sketch")
    bpy.ops.fresco.keyframes()
    card = newest()
    stage.until(watch, lambda: card.state == "waiting")
    before, icons = dict(card.pictures), shown(card)
    scene.frame_current = 205  # the keyframe 4 is nearest
    bpy.ops.fresco.redo_keyframe(seed=99, prompt="neon night")
    stage.until(watch, lambda: card.info.revision == 3)
    stage.until(watch, lambda: card.state == "waiting" and card.pictures[4] != before[4])
    told["thumbnails"] = [icons, shown(card), len(part("thumbnails")._shelf)]
    strips_before = len(stage.strips(scene))
    bpy.ops.fresco.continue_job()
    result = done(card)
    told["keyframes"] = {
        **stage.described(result),
        "others as before": all(card.pictures[n] == before[n] for n in (0, 8)),
        "added": len(stage.strips(scene)) - strips_before,
    }
    stage.only(scene, result)
    bpy.ops.fresco.redo_keyframe(seed=5)  # of a done job: another version
    again = newest()
    assert again is not card
    second = done(again)
    told["version"] = {**stage.described(second), "parent": again.info.parent}


def shown(card: Any) -> dict[int, str]:
    """The pictures of a job that are drawn. Without windows icons have no numbers."""
    thumbnails = part("thumbnails")
    frames = [frame for frame, _icon in thumbnails.icons(card, 6)]
    return {frame: thumbnails._names[card.ticket.job, frame] for frame in frames}


def file_loaded_again() -> None:
    """The file is saved while a job runs, and opened again: the job is found and placed."""
    global scene
    strip = stage.movie(scene, CLIP, 20, 300)
    set_small(strip, prompt="mosaic", steps=20)
    bpy.ops.fresco.stylise()
    job = newest().ticket.job
    stage.until(watch, lambda: watch.desk.cards[job].info)
    bpy.ops.wm.save_mainfile()
    watch.desk.cards.clear()  # as after a restart
    bpy.ops.wm.open_mainfile(filepath=bpy.data.filepath)
    scene = stage.edited()
    told["reopened"] = {"found": job in watch.desk.cards}
    result = done(watch.desk.cards[job])
    told["reopened"] |= stage.described(result)


def undone() -> None:
    """Undo while a job runs takes its memory from the strip; the result comes all the same."""
    global scene
    strip = stage.movie(scene, CLIP, 30, 400)
    set_small(strip, prompt="blueprint")
    bpy.ops.ed.undo_push(message="strip")
    bpy.ops.fresco.stylise()
    card = newest()
    bpy.ops.ed.undo_push(message="stylise")
    bpy.ops.ed.undo()
    scene = bpy.context.scene  # undo makes everything anew
    result = done(card)
    told["undone"] = stage.described(result)


def animated() -> None:
    """Strength by an F-curve, the prompt by its number, and a mask from another strip."""
    strip = stage.movie(scene, CLIP, 40, 500)
    set_small(strip, prompt="autumn", until="first_frame")
    getattr(strip, properties.PROMPTS).add().text = "snowy winter"
    setattr(strip, properties.PROMPT_NUMBER, 1)
    strip.keyframe_insert(properties.PROMPT_NUMBER, frame=500)
    setattr(strip, properties.PROMPT_NUMBER, 2)
    strip.keyframe_insert(properties.PROMPT_NUMBER, frame=506)
    strip.fresco_strength = 0.2
    strip.keyframe_insert("fresco_strength", frame=500)
    strip.fresco_strength = 1.0
    strip.keyframe_insert("fresco_strength", frame=508)
    strip.keyframe_insert("fresco_seed", frame=500)
    curves, compat = part("curves"), part("compat")
    seed = next(c for c in compat.fcurves(scene) if c.data_path.endswith("fresco_seed"))
    seed.mute = True
    mask = stage.movie(scene, CLIP, 41, 500)
    mask.name = "matte"
    stage.only(scene, strip)
    strip.fresco_mask = "matte"
    bpy.ops.fresco.stylise()
    card = newest()
    stage.until(watch, lambda: card.state in ("waiting", "failed"))
    assert card.state == "waiting", str(card.error)
    told["animated"] = {"request": dict(card.info.request), "frames": len(card.ticket.frames)}
    mask.driver_add("fresco_strength")
    told["driven"] = [curves.driven(scene, mask), curves.driven(scene, strip)]
    bpy.ops.fresco.cancel()
    stage.until(watch, lambda: card.state == "cancelled")


def every_parameter() -> None:
    """All that can be set, at its ends, is read back as the protocol wants it."""
    strip = stage.movie(scene, CLIP, 42, 500)
    told["usual values"] = properties.values(strip)
    told["read back"] = []
    for name, parameter in properties.parameters().items():
        choices = [each["key"] for each in parameter.get("choices", ())]
        ends = [parameter[end] for end in ("min", "max") if end in parameter]
        texts = {"String": ['"two"\nlines, ü ' + "x" * 2000], "Boolean": [True, False]}
        for value in choices or ends or texts[parameter["type"]]:
            properties.assign(strip, {name: value})
            told["read back"].append((name, value, properties.value(strip, name)))


def rendered_first() -> None:
    """A colour strip under a transform has no file: another Blender renders it."""
    collection = stage.strips(scene)
    compat = part("compat")
    colour = compat.new_effect(collection, "plain", "COLOR", 50, 600, 609)
    colour.color = (1.0, 0.5, 0.1)
    text = compat.new_effect(collection, "words", "TEXT", 51, 600, 609)
    text.text = "HELLO"
    for each in collection:
        each.select = each in (colour, text)
    meta = collection.new_meta("both", 52, 600)
    colour.move_to_meta(meta)
    text.move_to_meta(meta)
    meta.channel = 50
    compat.set_handles(meta, 600, 609)
    stage.only(scene, meta)
    set_small(meta, prompt="cartoon")
    bpy.ops.fresco.stylise()
    result = done(newest())
    told["rendered"] = {
        **stage.described(result),
        "rendered": stage.rendered(scene, result, FOLDER / "seen meta"),
    }


def two_at_once() -> None:
    """One that holds its last frame, and images; the originals are to be muted."""
    held = stage.movie(scene, CLIP, 80, 900, after=-4)
    first, *rest = sorted((FOLDER / "frames").iterdir())
    images = stage.strips(scene).new_image("images", str(first), 81, 900)
    for file in rest:
        images.elements.append(file.name)
    stage.only(scene, held, images)
    for strip in (held, images):
        set_small(strip, prompt="sepia film", keyframe_every=8)
        strip.fresco_mute_original = True
    bpy.ops.fresco.stylise()
    cards = list(watch.desk.cards.values())[-2:]
    told["together"] = [
        {
            **stage.described(done(card)),
            "rendered": stage.rendered(scene, result_of(card), FOLDER / f"seen {place}"),
        }
        for place, card in enumerate(cards)
    ]
    told["muted"] = [held.mute, images.mute]


def own_alpha_as_mask() -> None:
    """Images whose left half is transparent: only the right half is styled."""
    first, *rest = sorted((FOLDER / "cut out").iterdir())
    images = stage.strips(scene).new_image("cut out", str(first), 82, 1000)
    for file in rest:
        images.elements.append(file.name)
    stage.only(scene, images)
    set_small(images, prompt="neon night", keyframe_every=8)
    images.fresco_mask_alpha = True
    bpy.ops.fresco.stylise()
    card = newest()
    told["cut out"] = {**stage.described(done(card)), "mask": card.info.request["mask"]}


def stopped_by_escape() -> None:
    """The key stops what runs; when nothing does, or the film plays, it is not taken."""
    strip = stage.movie(scene, CLIP, 60, 700)
    set_small(strip, steps=400, prompt="watercolour")
    poll = bpy.ops.fresco.escape.poll
    taken = [poll()]
    bpy.ops.fresco.stylise()
    card = newest()
    stage.until(watch, lambda: card.state == "running")
    taken.append(poll())
    plays = SimpleNamespace(screen=SimpleNamespace(is_animation_playing=True))
    taken.append(part("escape").FRESCO_OT_escape.poll(plays))
    bpy.ops.fresco.escape()
    stage.until(watch, lambda: card.state == "cancelled")
    keymap = bpy.context.window_manager.keyconfigs.addon.keymaps["Sequencer"]
    told["escape"] = {
        "taken": taken,
        "keys": [each.type for each in keymap.keymap_items if each.idname == "fresco.escape"],
        "where": keymap.space_type,
    }


def panel_without_a_screen() -> None:
    """The panel is a program of its own; that it cannot open is told here."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        os.environ.pop(name, None)
    bpy.ops.fresco.open_panel()
    stage.until(watch, lambda: watch.said)
    told["panel"] = watch.said


def refused() -> None:
    """What cannot be styled says so, and leaves nothing."""
    before = set((FOLDER / "styled").iterdir())
    gone = stage.movie(scene, CLIP, 70, 800)
    gone.filepath = str(FOLDER / "gone.mp4")
    good = stage.movie(scene, CLIP, 71, 800)
    stage.only(scene, gone, good)
    set_small(good)
    told["refused"] = [said(bpy.ops.fresco.stylise)]
    told["left"] = len(set((FOLDER / "styled").iterdir()) - before)
    good.fresco_mask = "nothing of that name"
    stage.only(scene, good)
    told["refused"].append(said(bpy.ops.fresco.stylise))
    told["refused"].append(said(bpy.ops.fresco.cancel))


def elsewhere() -> None:
    """While a job runs its strip is moved, split and renamed, and another file is opened."""
    global scene
    strip = stage.movie(scene, CLIP, 90, 1000)
    set_small(strip, prompt="woodcut")
    bpy.ops.fresco.stylise()
    ticket = newest().ticket
    part("compat").set_content_start(strip, 1025)
    strip.split(frame=1030, split_method="SOFT")
    strip.name = "another name"
    bpy.ops.wm.save_mainfile()
    home = bpy.data.filepath
    bpy.ops.wm.read_homefile(use_empty=True)
    scene = stage.timeline()
    stage.movie(scene, CLIP, 1, 1).name = ticket.strip
    stage.until(watch, lambda: list(Path(ticket.folder).glob("*.mp4")))
    for _ in range(50):
        watch.tick()
        time.sleep(0.02)
    told["elsewhere"] = {"same scene": scene.name == ticket.scene, "there": results_of(ticket.job)}
    bpy.ops.wm.open_mainfile(filepath=home)
    scene = stage.edited()
    told["elsewhere"] |= stage.described(done(watch.desk.cards[ticket.job]))
    switch_off_and_on()
    stage.until(watch, lambda: watch.desk.cards[ticket.job].made)
    watch.tick()
    told["elsewhere"]["again"] = results_of(ticket.job)


def switch_off_and_on() -> None:
    for switch in (bpy.ops.preferences.addon_disable, bpy.ops.preferences.addon_enable):
        switch(module=stage.NAME)
    watch.tick()


def results_of(job: str) -> int:
    return sum(job in each.get("fresco_bridge", "") for each in stage.strips(scene))


class Fails:
    called = False

    def __call__(self, _told: Any) -> None:
        self.called = True
        raise RuntimeError("as a test has it")


def failing() -> None:
    """What fails in the timer is written down, and the timer goes on."""
    fails = Fails()
    watch.connection.ask(sys.modules[f"{stage.NAME}.link.messages"].PING, None, fails)
    end = time.monotonic() + 60
    while not fails.called and time.monotonic() < end:
        assert watch._timed() > 0
        time.sleep(0.02)
    told["timer failed"] = fails.called
    words = ("", "beginning", "translate, translate, encode", "the model of another version")
    told["doing"] = [part("panels").doing(each) for each in words]
    scene.sequence_editor_clear()
    ops = bpy.ops.fresco
    told["without strips"] = [
        said(act) for act in (ops.copy_settings, ops.add_prompt, ops.remove_prompt)
    ]


def said(act: Any) -> str:
    """What an operator says that refuses."""
    try:
        act()
    except RuntimeError as error:
        return str(error)
    return ""


ACTS = (
    movie_in_a_saved_file, keyframes_then_the_rest, file_loaded_again, undone, animated,
    every_parameter, rendered_first, two_at_once, own_alpha_as_mask, stopped_by_escape,
    panel_without_a_screen, refused, elsewhere, failing,
)  # fmt: skip
try:
    for act in ACTS:
        act()
        print("did", act.__name__, flush=True)
    stage.say(told)
    code = 0
except BaseException:
    import traceback

    traceback.print_exc()
    code = 1
sys.stdout.flush()
sys.stderr.flush()
os._exit(code)
