# SPDX-FileCopyrightText: FreSCo Bridge contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Render the sample clip ``demo.mp4``: a toy car on a country lane, four seconds, with sound.

Everything in it, shapes, surfaces and sound, is made here from numbers and a seed: nothing is
loaded. The pictures are Blender's (Cycles, on the processor), as a Python module::

    python3.11 -m venv demo-venv
    demo-venv/bin/pip install bpy==4.5.15 av==18.1.0
    demo-venv/bin/python examples/render_demo.py bridge_server/data/demo.mp4

bpy 4.5 wants Python 3.11. One core takes five to ten minutes. With ``--frames 1,48,96 --pictures
folder`` only those frames are written, as PNG, for a look while working on the scene. The same
versions on the same kind of processor give the same clip.

This file speaks to Blender's Python interface and is therefore under Blender's own licence, unlike
the rest of the project. Nothing in the project imports it. The clip is CC0.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import bpy
import numpy as np
from mathutils import Vector

WIDTH, HEIGHT, RATE, FRAMES = 384, 256, 24, 96
SOUND_RATE = 48000
SEED = 24

Array = np.ndarray[Any, Any]
Colour = tuple[float, float, float]


# --- numbers ---------------------------------------------------------------------------------


def smooth(low: float, high: float, x: Any) -> Any:
    """0 below ``low``, 1 above ``high``, and an even curve between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def rolling(x: Any, y: Any, octaves: int = 4) -> Any:
    """Smooth noise of about -1 to 1 over the plane, with features of about 6 units."""
    rng = np.random.default_rng(SEED)
    total = np.zeros(np.broadcast(x, y).shape)
    for octave in range(octaves):
        for _ in range(4):
            angle, phase = rng.uniform(0, 2 * math.pi, 2)
            k = 2.0**octave * rng.uniform(0.7, 1.3)
            wave = k * (x * math.cos(angle) + y * math.sin(angle)) + phase
            total = total + np.sin(wave + 0.8 * np.sin(0.6 * wave)) * 0.5 ** (octave + 1.5)
    return total


POND, POND_SIZE, POND_LEVEL = (5.6, 4.3), (4.3, 2.9), -0.16
HOUSE = (-3.2, 7.6)


def lane(x: Any) -> Any:
    """Where (y) the middle of the lane is."""
    return 1.4 - 2.8 / (1 + np.exp(-0.38 * np.asarray(x, float)))


def pond_distance(x: Any, y: Any) -> Any:
    """1 on the pond's edge, less inside."""
    edge = 1 + 0.12 * rolling(x * 0.9, y * 0.9, 2)
    return np.hypot((x - POND[0]) / POND_SIZE[0], (y - POND[1]) / POND_SIZE[1]) / edge


def height(x: Any, y: Any) -> Any:
    """Of the ground."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    road = 1 - smooth(0.7, 2.2, np.abs(y - lane(x)))
    level = 0.12 * np.sin(0.35 * x)
    rough = 0.28 * rolling(x * 0.35, y * 0.35)
    yard = 1 - smooth(3.0, 5.0, np.hypot(x - HOUSE[0], y - HOUSE[1]))
    near = level + rough * (1 - road) * (1 - yard) - 0.05 * road
    hills = smooth(13, 46, y) * (
        2.6 + 1.9 * np.sin(0.085 * x + 2.6) + 0.8 * rolling(x * 0.1, y * 0.1)
    )
    dip = 1 - smooth(0.55, 1.25, pond_distance(x, y))
    return near * (1 - dip) + hills - 0.75 * dip


# --- meshes ----------------------------------------------------------------------------------


class Pile:
    """Gathers polygons with a colour each, and makes one object of them."""

    def __init__(self) -> None:
        self.points: list[Array] = []
        self.faces: list[list[int]] = []
        self.tints: list[Array] = []
        self.count = 0

    def add(self, points: Any, faces: Sequence[Sequence[int]], tint: Any) -> None:
        """Points (N, 3), faces of indices into them, one colour or one for each point."""
        points = np.asarray(points, float).reshape(-1, 3)
        self.points.append(points)
        self.faces.extend([i + self.count for i in face] for face in faces)
        self.tints.append(np.broadcast_to(np.asarray(tint, float), points.shape))
        self.count += len(points)

    def box(self, middle: Any, size: Any, tint: Any, turn: float = 0, tilt: float = 0) -> None:
        """A box; tilted about its x axis, then turned about z."""
        corner = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) / 2
        corner = corner * np.asarray(size)
        c, s = math.cos(tilt), math.sin(tilt)
        corner = corner @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]]).T
        c, s = math.cos(turn), math.sin(turn)
        corner = corner @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]).T
        faces = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
        self.add(corner + np.asarray(middle), faces, tint)

    def tube(self, path: Any, radii: Sequence[float], tint: Any, sides: int = 8) -> None:
        """A round stick along points, closed at both ends."""
        path = np.asarray(path, float)
        along = np.gradient(path, axis=0)
        along /= np.linalg.norm(along, axis=1, keepdims=True)
        helper = np.array([0.0, 0, 1]) if abs(along[0, 2]) < 0.9 else np.array([1.0, 0, 0])
        u = np.cross(along, helper)
        u /= np.linalg.norm(u, axis=1, keepdims=True)
        v = np.cross(along, u)
        angle = np.linspace(0, 2 * math.pi, sides, endpoint=False)[None, :, None]
        ring = path[:, None] + np.asarray(radii)[:, None, None] * (
            np.cos(angle) * u[:, None] + np.sin(angle) * v[:, None]
        )
        faces = grid_faces(len(path), sides, around=True)
        faces += [list(range(sides)), [sides * (len(path) - 1) + i for i in range(sides)][::-1]]
        self.add(ring.reshape(-1, 3), faces, tint)

    def sheet(self, points: Array, tint: Any, around: bool = False) -> None:
        """A grid of points (rows, columns, 3)."""
        faces = grid_faces(points.shape[0], points.shape[1], around)
        self.add(points.reshape(-1, 3), faces, tint)

    def rounded(self, middle: Any, half: Any, power: float, tint: Any) -> None:
        """A box with round edges (a superellipsoid): power 2 is an egg, 8 nearly a box."""
        u = np.linspace(-math.pi / 2, math.pi / 2, 24)[:, None]
        v = np.linspace(0, 2 * math.pi, 48, endpoint=False)[None]
        e = 2 / power

        def bent(t: Any) -> Any:
            return np.sign(t) * np.abs(t) ** e

        shape = np.stack(
            np.broadcast_arrays(
                bent(np.cos(u)) * bent(np.cos(v)),
                bent(np.cos(u)) * bent(np.sin(v)),
                bent(np.sin(u)),
            ),
            -1,
        )
        self.sheet(np.asarray(middle) + shape * np.asarray(half), tint, around=True)

    def cards(self, middles: Array, across: Array, up: Array, tints: Array) -> None:
        """Many small leaves: four corners about each middle (N, 3)."""
        corners = np.stack([middles - across, middles - up, middles + across, middles + up], 1)
        n = len(middles)
        faces = np.arange(4 * n).reshape(n, 4).tolist()
        self.add(corners.reshape(-1, 3), faces, np.repeat(tints, 4, axis=0))

    def mesh(self, name: str, material: Any, even: bool = False) -> Any:
        """The mesh; ``even`` shades across the edges of its faces."""
        made = bpy.data.meshes.new(name)
        made.from_pydata(np.concatenate(self.points).tolist(), [], self.faces)
        tint = made.color_attributes.new("tint", "FLOAT_COLOR", "POINT")
        colours = np.ones((self.count, 4), np.float32)
        colours[:, :3] = np.concatenate(self.tints)
        tint.data.foreach_set("color", colours.ravel())
        made.materials.append(material)
        if even:
            made.polygons.foreach_set("use_smooth", [True] * len(made.polygons))
        made.update()
        return made

    def put(self, name: str, material: Any, even: bool = False, parent: Any = None) -> Any:
        """The object, in the scene."""
        return place(self.mesh(name, material, even), parent=parent)


def grid_faces(rows: int, columns: int, around: bool) -> list[list[int]]:
    """Faces between the neighbours of a grid; ``around`` joins its last column and its first."""
    i = np.arange(rows * columns).reshape(rows, columns)
    right = np.roll(i, -1, axis=1)
    if not around:
        i, right = i[:, :-1], right[:, :-1]
    return np.stack([i[:-1], right[:-1], right[1:], i[1:]], -1).reshape(-1, 4).tolist()


def place(
    mesh: Any, at: Any = (0, 0, 0), turn: float = 0, size: Any = (1, 1, 1), parent: Any = None
) -> Any:
    """One more object that shows ``mesh``."""
    thing = bpy.data.objects.new(mesh.name if mesh else "joint", mesh)
    thing.location, thing.rotation_euler, thing.scale = at, (0, 0, turn), size
    thing.parent = parent
    bpy.context.collection.objects.link(thing)
    return thing


# --- surfaces --------------------------------------------------------------------------------


class Surface:
    """A material, built from shader nodes."""

    def __init__(self, name: str, tree: Any = None) -> None:
        self.material = None
        if tree is None:
            self.material = bpy.data.materials.new(name)
            self.material.use_nodes = True
            tree = self.material.node_tree
        self.tree = tree
        self.tree.nodes.clear()

    def node(
        self, kind: str, output: Any = 0, inputs: dict[Any, Any] | None = None, **set_: Any
    ) -> Any:
        """A node's output; inputs are numbers or other outputs."""
        node = self.tree.nodes.new("ShaderNode" + kind)
        for name, value in set_.items():
            setattr(node, name, value)
        for name, value in (inputs or {}).items():
            if isinstance(value, bpy.types.NodeSocket):
                self.tree.links.new(value, node.inputs[name])
            else:
                if isinstance(value, tuple) and node.inputs[name].type == "RGBA":
                    value = (*value, 1.0)
                node.inputs[name].default_value = value
        return node.outputs[output] if output is not None else node

    def where(self) -> Any:
        """The place in the object's own space."""
        return self.node("TexCoord", "Object")

    def noise(self, scale: float, detail: float = 4, place: Any = None, **more: Any) -> Any:
        """Smooth noise around 0.5, of the object's space."""
        place = place or self.where()
        return self.node("TexNoise", 0, {"Vector": place, "Scale": scale, "Detail": detail, **more})

    def ramp(self, value: Any, low: float, high: float) -> Any:
        """From 0 at ``low`` to 1 at ``high``."""
        return self.node(
            "MapRange", 0, {0: value, 1: low, 2: high}, interpolation_type="SMOOTHSTEP", clamp=True
        )

    def math(self, operation: str, a: Any, b: Any = 0.0) -> Any:
        """Of two numbers."""
        return self.node("Math", 0, {0: a, 1: b}, operation=operation)

    def mix(self, share: Any, a: Any, b: Any, blend: str = "MIX") -> Any:
        """Of two colours."""
        return self.node("Mix", 2, {0: share, 6: a, 7: b}, data_type="RGBA", blend_type=blend)

    def tint(self) -> Any:
        """The colours that the mesh brings."""
        return self.node("VertexColor", 0, layer_name="tint")

    def speckled(self, colour: Any, scale: float, amount: float) -> Any:
        """``colour``, darker and lighter in spots."""
        spots = self.ramp(self.noise(scale, 2), 0.3, 0.7)
        dark = self.mix(1.0, colour, (1 - amount,) * 3, "MULTIPLY")
        light = self.mix(1.0, colour, (1 + amount,) * 3, "MULTIPLY")
        return self.mix(spots, dark, light)

    def bump(self, value: Any, depth: float) -> Any:
        """A normal that follows ``value``."""
        return self.node("Bump", 0, {"Height": value, "Distance": depth, "Strength": 1.0})

    def done(self, colour: Any, rough: float = 0.8, normal: Any = None, **more: Any) -> Any:
        """The material, with Blender's general shader."""
        inputs = {
            "Base Color": colour,
            "Roughness": rough,
            **{k.replace("_", " "): v for k, v in more.items()},
        }
        if normal is not None:
            inputs["Normal"] = normal
        return self.end(self.node("BsdfPrincipled", 0, inputs))

    def end(self, shader: Any) -> Any:
        """The material, with this shader."""
        self.node("OutputMaterial", None, {"Surface": shader})
        return self.material


def painted(name: str, rough: float, scale: float, amount: float, depth: float, **more: Any) -> Any:
    """The mesh's own colours, speckled and a little uneven."""
    s = Surface(name)
    return s.done(
        s.speckled(s.tint(), scale, amount), rough, s.bump(s.noise(scale * 2, 1), depth), **more
    )


def leafy() -> Any:
    """Leaves and blades: light comes through them."""
    s = Surface("leaf")
    colour = s.tint()
    front = s.node("BsdfDiffuse", 0, {"Color": colour})
    back = s.node("BsdfTranslucent", 0, {"Color": colour})
    return s.end(s.node("MixShader", 0, {0: 0.35, 1: front, 2: back}))


def ground() -> Any:
    """Grass of several greens; the lane's sand and the pond's bank where the mesh's colour says."""
    s = Surface("ground")
    wide = s.ramp(s.noise(0.35, 1), 0.35, 0.65)
    fine = s.ramp(s.noise(5.0, 3), 0.3, 0.7)
    grass = s.mix(wide, (0.10, 0.20, 0.022), (0.24, 0.31, 0.04))
    grass = s.mix(fine, s.mix(1.0, grass, (0.55, 0.62, 0.55), "MULTIPLY"), grass)
    sand = s.mix(s.ramp(s.noise(3.0, 3), 0.35, 0.65), (0.30, 0.19, 0.095), (0.55, 0.40, 0.23))
    pebble = s.node("TexVoronoi", 0, {"Vector": s.where(), "Scale": 7.0})
    sand = s.mix(s.ramp(pebble, 0.22, 0.12), sand, (0.50, 0.45, 0.38))
    split = s.node("SeparateColor", 0, {0: s.tint()})
    edge = s.math("ADD", split, s.math("MULTIPLY", s.math("SUBTRACT", s.noise(2.2, 3), 0.5), 0.9))
    colour = s.mix(s.ramp(edge, 0.38, 0.6), grass, sand)
    return s.done(colour, 0.95, s.bump(s.noise(7.0, 1), 0.09), Specular_IOR_Level=0.1)


def water() -> Any:
    """Ripples; the scene moves their third axis."""
    s = Surface("water")
    stretched = s.node("Mapping", 0, {"Vector": s.where(), "Scale": (1.0, 2.2, 1.0)})
    ripple = s.tree.nodes.new("ShaderNodeTexNoise")
    ripple.noise_dimensions = "4D"
    ripple.name = "ripple"
    ripple.inputs["Scale"].default_value = 1.3
    ripple.inputs["Detail"].default_value = 1
    s.tree.links.new(stretched, ripple.inputs["Vector"])
    normal = s.bump(ripple.outputs[0], 0.05)
    return s.done((0.02, 0.10, 0.13), 0.06, normal, Specular_IOR_Level=0.9)


def sky(world: Any) -> None:
    """Blue overhead, pale at the horizon, with heaps of cloud that drift."""
    world.use_nodes = True
    s = Surface("sky", world.node_tree)
    way = s.node("TexCoord", "Generated")
    split = s.tree.nodes.new("ShaderNodeSeparateXYZ")
    s.tree.links.new(way, split.inputs[0])
    up = s.math("MAXIMUM", split.outputs[2], 0.0)
    blue = s.mix(s.ramp(up, 0.0, 0.45), (0.36, 0.58, 0.88), (0.04, 0.17, 0.58))
    flat = s.math("ADD", up, 0.30)
    spread = s.node(
        "CombineXYZ",
        0,
        {
            0: s.math("DIVIDE", split.outputs[0], flat),
            1: s.math("DIVIDE", split.outputs[1], flat),
        },
    )
    drift = s.tree.nodes.new("ShaderNodeMapping")
    drift.name = "drift"
    s.tree.links.new(spread, drift.inputs[0])
    here = drift.outputs[0]
    lit = s.node("VectorMath", 0, {0: here, 1: (-0.10, -0.12, 0.0)}, operation="ADD")
    heap = s.noise(2.1, 6, here, Roughness=0.5)
    shade = s.noise(2.1, 3, lit, Roughness=0.5)
    cover = s.ramp(heap, 0.50, 0.57)
    depth = s.ramp(s.math("SUBTRACT", heap, shade), -0.12, 0.06)
    cloud = s.mix(depth, (0.42, 0.50, 0.64), (1.02, 0.99, 0.94))
    colour = s.mix(cover, blue, cloud)
    shine = s.node("Background", 0, {"Color": colour, "Strength": 0.95})
    s.node("OutputWorld", None, {"Surface": shine})


# --- the scene -------------------------------------------------------------------------------


def land(rng: np.random.Generator, leaf: Any) -> None:
    """Ground, pond, blades of grass, flowers and stones."""
    x = np.concatenate(
        [np.linspace(-48, -12, 60), np.linspace(-11.9, 12, 170), np.linspace(12.1, 48, 60)]
    )
    y = np.concatenate([np.linspace(-10, 12, 170), np.linspace(12.1, 62, 110)])
    X, Y = np.meshgrid(x, y)
    road = 1 - smooth(0.55, 1.5, np.abs(Y - lane(X)))
    door = (1 - smooth(0.35, 0.9, np.abs(X - HOUSE[0] - 0.9))) * (
        (lane(X) < Y) & (HOUSE[1] - 1 > Y)
    )
    bank = 1 - smooth(0.85, 1.16, pond_distance(X, Y))
    tint = np.maximum(np.maximum(road, door), bank)
    pile = Pile()
    pile.sheet(np.stack([X, Y, height(X, Y)], -1), np.repeat(tint.reshape(-1, 1), 3, 1))
    pile.put("ground", ground(), even=True)

    pile = Pile()
    pile.box((POND[0], POND[1], POND_LEVEL - 0.01), (11, 7, 0.02), (0, 0, 0))
    pile.put("water", water())

    def free(x: Array, y: Array) -> Array:
        house = (np.abs(x - HOUSE[0]) > 2.9) | (np.abs(y - HOUSE[1]) > 2.2)
        path = (np.abs(x - HOUSE[0] - 0.9) > 0.7) | (y < lane(x)) | (y > HOUSE[1])
        return house & path & (np.abs(y - lane(x)) > 1.12) & (pond_distance(x, y) > 1.07)

    pile = Pile()
    n = 52000
    y = -9 + 24 * rng.uniform(0, 1, n) ** 1.35
    x = rng.uniform(-1, 1, n) * (7 + 0.75 * (y + 9))
    patch = rolling(x * 1.1 + 5, y * 1.1)
    keep = free(x, y) & (patch + rng.normal(0, 0.5, n) > -0.35)
    x, y, patch = x[keep], y[keep], patch[keep]
    n = len(x)
    root = np.stack([x, y, height(x, y) - 0.02], 1)
    tall = rng.uniform(0.10, 0.26, n) * (1 + 0.5 * smooth(0, 1, patch))
    lean = np.stack([rng.normal(0, 0.35, n), rng.normal(0, 0.35, n), np.ones(n)], 1)
    angle = rng.uniform(0, math.pi, n)
    side = np.stack([np.cos(angle), np.sin(angle), np.zeros(n)], 1) * rng.uniform(
        0.014, 0.03, (n, 1)
    )
    corners = np.stack([root - side, root + side, root + lean * tall[:, None]], 1)
    dry = smooth(-0.2, 1.1, patch + rng.normal(0, 0.4, n))[:, None]
    tint = np.array([0.12, 0.24, 0.025]) * (1 - dry) + np.array([0.36, 0.40, 0.06]) * dry
    tint = tint * rng.uniform(0.7, 1.25, (n, 1))
    pile.add(corners.reshape(-1, 3), np.arange(3 * n).reshape(n, 3).tolist(), np.repeat(tint, 3, 0))
    pile.put("grass", leaf)

    pile = Pile()
    n = 1500
    x, y = rng.uniform(-13, 13, n), -8 + 17 * rng.uniform(0, 1, n)
    patch = rolling(x * 0.9 + 40, y * 0.9 + 9)
    keep = free(x, y) & (patch > 0.12)
    kinds: list[Colour] = [
        (0.85, 0.05, 0.03),
        (0.95, 0.72, 0.05),
        (0.9, 0.88, 0.82),
        (0.42, 0.14, 0.62),
    ]
    for px, py, p in zip(x[keep], y[keep], patch[keep], strict=True):
        foot = np.array([px, py, float(height(px, py))])
        head = foot + np.array([rng.normal(0, 0.04), rng.normal(0, 0.04), rng.uniform(0.22, 0.42)])
        kind = kinds[(int(px // 2.6 + py // 3.1) + (rng.uniform() < 0.2)) % 4]
        pile.tube([foot, head], [0.012, 0.01], (0.10, 0.22, 0.03), 4)
        angle = np.linspace(0, 2 * math.pi, 10, endpoint=False)
        radius = (
            np.where(np.arange(10) % 2, 0.105, 0.065) * rng.uniform(0.75, 1.15) * (0.8 + 0.3 * p)
        )
        rim = np.stack(
            [np.cos(angle) * radius, np.sin(angle) * radius, 0.02 * np.sin(angle) + 0.03], 1
        )
        rim = rim @ np.array([[1, 0, 0], [0, 0.8, 0.6], [0, -0.6, 0.8]])  # tilted to the camera
        pile.add(
            np.vstack([head, head + rim]), [[0, 1 + i, 1 + (i + 1) % 10] for i in range(10)], kind
        )
        pile.rounded(head + np.array([0, -0.02, 0.03]), [0.03] * 3, 2, (0.35, 0.18, 0.02))
    pile.put("flowers", leaf)

    pile = Pile()
    angle = rng.uniform(0, 2 * math.pi, 46)
    for a in angle:
        r = rng.uniform(0.98, 1.12)
        px, py = POND[0] + POND_SIZE[0] * r * math.cos(a), POND[1] + POND_SIZE[1] * r * math.sin(a)
        size = rng.uniform(0.10, 0.30)
        grey = np.array([0.36, 0.34, 0.31]) * rng.uniform(0.6, 1.2)
        pile.rounded(
            (px, py, float(height(px, py)) + 0.05), size * rng.uniform(0.6, 1.2, 3), 2.6, grey
        )
    pile.put("stones", painted("stone", 0.85, 5, 0.35, 0.06), even=True)

    pile = Pile()
    for _ in range(90):
        a = rng.normal(2.2, 0.45) if rng.uniform() < 0.6 else rng.normal(-0.5, 0.3)
        r = rng.uniform(0.9, 1.05)
        px, py = POND[0] + POND_SIZE[0] * r * math.cos(a), POND[1] + POND_SIZE[1] * r * math.sin(a)
        foot = np.array([px, py, -0.4])
        top = foot + np.array([rng.normal(0, 0.12), rng.normal(0, 0.1), rng.uniform(0.9, 1.5)])
        pile.tube(
            [foot, (foot + top) / 2 + [0.02, 0, 0], top], [0.02, 0.018, 0.01], (0.2, 0.32, 0.05), 4
        )
        if rng.uniform() < 0.35:
            pile.tube([top, top + np.array([0, 0, 0.25])], [0.045, 0.045], (0.20, 0.09, 0.03), 6)
    pile.put("reeds", leaf)


def crown(
    pile: Pile, rng: np.random.Generator, blobs: Any, leaves: int, size: float, tints: Any
) -> None:
    """Leaves on the outside of several eggs (x, y, z, radius)."""
    blobs = np.asarray(blobs, float)
    for blob in blobs:
        dark = np.asarray(tints[0]) * 0.45
        pile.rounded(blob[:3], blob[3] * 0.84 * np.array([1, 1, 0.85]), 2, dark)
    which = rng.choice(len(blobs), leaves, p=blobs[:, 3] ** 2 / np.sum(blobs[:, 3] ** 2))
    out = rng.normal(0, 1, (leaves, 3))
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    far = blobs[which, 3, None] * rng.uniform(0.78, 1.06, (leaves, 1))
    middle = blobs[which, :3] + out * far * [1, 1, 0.85]
    face = out + rng.normal(0, 0.45, (leaves, 3))
    across = np.cross(face, rng.normal(0, 1, (leaves, 3)))
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    up = np.cross(face, across)
    up /= np.linalg.norm(up, axis=1, keepdims=True)
    scale = size * rng.uniform(0.7, 1.3, (leaves, 1))
    share = np.clip(0.5 + 0.35 * out[:, 2:] + rng.normal(0, 0.25, (leaves, 1)), 0, 1)
    tint = np.asarray(tints[0]) * (1 - share) + np.asarray(tints[1]) * share
    pile.cards(middle, across * scale, up * scale * 0.7, tint)


def oak(rng: np.random.Generator, leaf: Any, bark: Any, tints: Any) -> tuple[Any, Any]:
    """A tree with a round crown, about five units tall: meshes of its leaves and its wood."""
    blobs = [(0, 0, 3.5, 1.15)]
    wood = Pile()
    brown = (0.20, 0.13, 0.08)
    wood.tube(
        [(0, 0, -0.4), (0.05, 0, 0.9), (-0.05, 0.05, 2.0), (0, 0, 3.2)],
        [0.30, 0.2, 0.17, 0.1],
        brown,
        10,
    )
    for i in range(8):
        a = i * 2.4 + rng.uniform(-0.3, 0.3)
        r, z = rng.uniform(0.75, 1.15), rng.uniform(2.4, 4.3)
        tip = np.array([r * math.cos(a), r * math.sin(a), z])
        blobs.append((*tip, rng.uniform(0.65, 0.95)))
        wood.tube([(0, 0, 1.5 + 0.1 * i), tip * [0.5, 0.5, 0.85], tip], [0.1, 0.07, 0.03], brown, 6)
    pile = Pile()
    crown(pile, rng, blobs, 3800, 0.13, tints)
    return pile.mesh("oak", leaf), wood.mesh("trunk", bark, even=True)


def fir(rng: np.random.Generator, leaf: Any, bark: Any) -> tuple[Any, Any]:
    """A conifer, about six units tall."""
    wood = Pile()
    wood.tube([(0, 0, -0.4), (0, 0, 5.6)], [0.2, 0.03], (0.16, 0.10, 0.07), 8)
    pile = Pile()
    n = 3400
    t = rng.uniform(0, 1, n) ** 0.7  # 0 at the tip
    tier = (t * 9) % 1
    radius = (0.12 + 1.5 * t) * (0.55 + 0.45 * tier)
    a = rng.uniform(0, 2 * math.pi, n)
    out = np.stack([np.cos(a), np.sin(a), np.zeros(n)], 1)
    middle = out * (radius * rng.uniform(0.6, 1.02, n))[:, None]
    middle[:, 2] = 6.0 - 5.1 * t
    up = out + np.stack([np.zeros(n), np.zeros(n), -0.55 + rng.normal(0, 0.2, n)], 1)
    across = np.cross(out, [0, 0, 1.0]) + rng.normal(0, 0.3, (n, 3))
    light = np.clip(tier + rng.normal(0, 0.25, n), 0, 1)[:, None]
    tint = np.array([0.022, 0.075, 0.035]) * (1 - light) + np.array([0.09, 0.20, 0.075]) * light
    pile.cards(middle, across * 0.10, up * 0.20, tint)
    ring = np.linspace(0, 2 * math.pi, 16, endpoint=False)
    z = np.array([0.9, 6.0])[:, None]
    cone = np.stack(
        np.broadcast_arrays(np.cos(ring) * (6 - z) * 0.2, np.sin(ring) * (6 - z) * 0.2, z), -1
    )
    pile.sheet(cone, (0.012, 0.04, 0.02), around=True)
    return pile.mesh("fir", leaf), wood.mesh("fir trunk", bark, even=True)


def woods(rng: np.random.Generator, leaf: Any) -> None:
    """Trees near and far, and bushes."""
    bark = painted("bark", 0.9, 9, 0.35, 0.05)
    green = oak(rng, leaf, bark, [(0.06, 0.15, 0.018), (0.22, 0.34, 0.05)])
    lime = oak(rng, leaf, bark, [(0.14, 0.23, 0.02), (0.42, 0.46, 0.06)])
    blossom = oak(rng, leaf, bark, [(0.62, 0.22, 0.30), (0.93, 0.66, 0.70)])
    copper = oak(rng, leaf, bark, [(0.30, 0.08, 0.02), (0.62, 0.25, 0.05)])
    pine = fir(rng, leaf, bark)

    def plant(kind: Any, x: float, y: float, size: float) -> None:
        turn = rng.uniform(0, 6.28)
        for part in kind:
            place(part, (x, y, float(height(x, y))), turn, (size,) * 3)

    near = [
        (green, 1.9, 10.6, 1.15),
        (blossom, -7.9, 6.4, 0.95),
        (lime, -10.8, 9.8, 1.25),
        (copper, 10.2, 10.4, 1.1),
        (pine, 5.6, 13.5, 1.0),
        (pine, 7.4, 15.0, 1.25),
        (lime, 4.0, 15.5, 1.0),
        (pine, -8.2, 14.0, 1.2),
        (pine, -6.4, 15.2, 0.95),
        (green, 13.6, 7.4, 1.2),
        (blossom, 8.4, 12.6, 0.8),
        (green, -13.5, 4.6, 1.1),
        (pine, 13.4, 14.5, 1.4),
    ]
    for kind, x, y, size in near:
        plant(kind, x, y, size)
    for _ in range(90):
        y = rng.uniform(21, 50)
        x = rng.uniform(-1, 1) * (8 + 0.62 * y)
        if rolling(x * 0.3 + 3, y * 0.3) < 0.0:
            continue
        kind = [pine, pine, green, lime, green, copper][int(rng.integers(6))]
        plant(kind, x, y, rng.uniform(0.65, 1.05))

    pile = Pile()
    for x, y, r in [
        (-5.4, 5.7, 0.5),
        (-4.7, 5.6, 0.38),
        (-0.9, 5.6, 0.48),
        (-0.3, 5.9, 0.36),
        (-6.3, 6.6, 0.6),
    ]:
        z = float(height(x, y)) + 0.3
        blobs = [
            (x, y, z, r),
            (x + 0.35 * r, y - 0.2, z - 0.1, 0.7 * r),
            (x - 0.4 * r, y, z - 0.1, 0.7 * r),
        ]
        crown(pile, rng, blobs, 700, 0.07, [(0.05, 0.14, 0.02), (0.20, 0.32, 0.06)])
        blooms = int(24 * r)
        a, t = rng.uniform(math.pi, 2 * math.pi, blooms), rng.uniform(0, 1.2, blooms)
        for b, c in zip(a, t, strict=True):
            spot = np.array([x, y, z]) + r * np.array(
                [math.cos(b) * math.cos(c), math.sin(b) * math.cos(c), math.sin(c)]
            )
            pile.rounded(spot, [0.06] * 3, 2, (0.86, 0.12, 0.30))
    pile.put("bushes", leaf)


def house(rng: np.random.Generator) -> None:
    """A cottage: plaster and timber, a stone foot, tiles on the roof."""
    base = place(None, (*HOUSE, float(height(*HOUSE)) - 0.05))
    wide, deep, wall, rise = 5.0, 3.4, 2.1, 1.75
    front = -deep / 2
    pile = Pile()
    cream = (0.80, 0.70, 0.50)
    pile.box((0, 0, wall / 2), (wide, deep, wall), cream)
    for side in (-1, 1):
        x = side * wide / 2
        pile.add([(x, front, wall), (x, -front, wall), (x, 0, wall + rise)], [[0, 1, 2]], cream)
    pile.put("plaster", painted("plaster", 0.9, 3, 0.13, 0.03), parent=base)

    pile = Pile()
    for x in np.arange(-wide / 2, wide / 2, 0.36):
        for z in (0.1, 0.32):
            grey = np.array([0.38, 0.35, 0.31]) * rng.uniform(0.6, 1.25)
            pile.rounded(
                (x + 0.18 + (0.15 if z > 0.2 else 0), front - 0.02, z), (0.19, 0.1, 0.12), 3.5, grey
            )
    pile.put("foot", bpy.data.materials["stone"], even=True, parent=base)

    timber = Pile()
    brown = (0.16, 0.075, 0.035)
    for x in (-2.45, -0.15, 1.95, 2.45):
        timber.box((x, front - 0.03, wall / 2 + 0.2), (0.13, 0.1, wall - 0.4), brown)
    timber.box((0, front - 0.04, wall - 0.06), (wide + 0.1, 0.1, 0.15), brown)
    timber.box((-1.3, front - 0.03, 1.0), (2.3, 0.09, 0.11), brown)
    for side in (-1, 1):
        timber.box((side * (wide / 2 + 0.02), 0, wall - 0.05), (0.1, deep, 0.15), brown)
        timber.box((side * (wide / 2 + 0.02), 0, wall / 2), (0.1, 0.13, wall), brown)
    blue = (0.05, 0.20, 0.34)
    timber.box((0.9, front - 0.04, 0.88), (0.86, 0.1, 1.55), blue)
    for i in range(3):
        timber.box((0.68 + 0.22 * i, front - 0.1, 0.9), (0.17, 0.03, 1.35), (0.08, 0.27, 0.44))
    timber.box((0.9, front - 0.3, 0.08), (1.2, 0.6, 0.16), (0.42, 0.40, 0.37))
    white = (0.82, 0.80, 0.74)
    glass = Pile()
    for x in (-1.75, -0.8):
        glass.box((x, front - 0.03, 1.4), (0.6, 0.06, 0.62), (0.05, 0.09, 0.13))
        for dx in (-0.31, 0, 0.31):
            timber.box((x + dx, front - 0.06, 1.4), (0.06, 0.07, 0.68), white)
        for dz in (-0.33, 0, 0.33):
            timber.box((x, front - 0.06, 1.4 + dz), (0.68, 0.07, 0.06), white)
        timber.box((x, front - 0.16, 1.02), (0.74, 0.2, 0.15), (0.30, 0.13, 0.06))
        for i in range(9):
            spot = (
                x - 0.32 + 0.08 * i,
                front - 0.17 + rng.uniform(-0.05, 0.05),
                1.15 + rng.uniform(0, 0.07),
            )
            timber.rounded(
                spot, [0.06] * 3, 2, [(0.8, 0.05, 0.05), (0.9, 0.35, 0.45), (0.1, 0.3, 0.04)][i % 3]
            )
    timber.put("timber", painted("timber", 0.7, 8, 0.28, 0.01), parent=base)
    s = Surface("pane")
    glass.put("panes", s.done((0.04, 0.07, 0.10), 0.05), parent=base)

    roof = Pile()
    slope = math.hypot(deep / 2 + 0.35, rise * (deep / 2 + 0.35) / (deep / 2))
    tilt = math.atan2(rise, deep / 2)
    rows, columns = 11, 24
    for side in (-1, 1):
        for row in range(rows):
            along = slope * (row + 0.5) / rows
            y = side * (deep / 2 + 0.35 - along * math.cos(tilt))
            z = wall - 0.35 * rise / (deep / 2) + along * math.sin(tilt) + 0.08
            for column in range(columns):
                x = (column + 0.5 + 0.5 * (row % 2)) * (wide + 0.5) / columns - wide / 2 - 0.3
                red = np.array([0.52, 0.155, 0.06]) * rng.uniform(0.62, 1.3)
                red = red * (1 + rng.normal(0, 0.06, 3))
                size = (0.21, slope / rows * 1.25, 0.05)
                roof.box((x, y, z), size, red, tilt=side * -(tilt - 0.13))
    roof.tube(
        [(-wide / 2 - 0.3, 0, wall + rise + 0.12), (wide / 2 + 0.3, 0, wall + rise + 0.12)],
        [0.12, 0.12],
        (0.42, 0.13, 0.06),
    )
    roof.put("roof", painted("tile", 0.75, 6, 0.22, 0.02), parent=base)

    pile = Pile()
    for row in range(13):
        for side in range(4):
            for k in range(2):
                shift = -0.14 + 0.28 * k + (0.07 if row % 2 else -0.07)
                x, y = [(shift, -0.27), (0.27, shift), (shift, 0.27), (-0.27, shift)][side]
                brick = np.array([0.42, 0.15, 0.09]) * rng.uniform(0.65, 1.3)
                size = (0.26, 0.05, 0.105) if side % 2 == 0 else (0.05, 0.26, 0.105)
                pile.box((1.45 + x, 0.35 + y, wall + 0.9 + 0.12 * row), size, brick)
    pile.box((1.45, 0.35, wall + 1.6), (0.52, 0.52, 1.6), (0.45, 0.42, 0.38))
    pile.box((1.45, 0.35, wall + 2.5), (0.7, 0.7, 0.12), (0.40, 0.37, 0.34))
    pile.put("chimney", painted("brick", 0.9, 9, 0.25, 0.02), parent=base)


def fence(rng: np.random.Generator) -> None:
    """White pickets beyond the lane, as far as the pond, with a gap before the door."""
    pile = Pile()
    step = 0.36
    for x in np.arange(-13, 0.6, step):
        y = float(lane(x)) + 1.85
        if abs(x - HOUSE[0] - 0.9) < 0.75:
            continue
        z = float(height(x, y))
        turn = math.atan2(float(lane(x + 0.1) - lane(x - 0.1)), 0.2)
        shade = np.array([0.78, 0.75, 0.68]) * rng.uniform(0.8, 1.08)
        pile.box((x, y, z + 0.3), (0.13, 0.05, 0.74 + rng.normal(0, 0.02)), shade, turn)
        for level in (0.22, 0.5):
            pile.box((x, y + 0.04, z + level), (step * 1.1, 0.04, 0.08), shade * 0.92, turn)
    pile.put("fence", bpy.data.materials["timber"])


def cabin_patch(low: float, high: float, first: float, last: float, out: float) -> Array:
    """Part of the car's cabin wall: heights 0 to 1, angles in degrees from straight ahead."""
    t = np.linspace(low, high, 14)[:, None]
    a = np.radians(np.linspace(first, last, 40))[None]
    narrow = 1 - 0.26 * t - 0.10 * t**4
    e = 2 / 4.2
    x = np.sign(np.cos(a)) * np.abs(np.cos(a)) ** e * (0.86 * narrow + out) - 0.12 * t - 0.18
    y = np.sign(np.sin(a)) * np.abs(np.sin(a)) ** e * (0.60 * (1 - 0.20 * t - 0.06 * t**4) + out)
    return np.stack(np.broadcast_arrays(x, y, 0.86 + 0.56 * t), -1)


def car() -> tuple[Any, list[Any]]:
    """The car, heading along x, and its four wheels."""
    body = place(None)
    s = Surface("paint")
    dust = s.ramp(s.noise(2.5, 5), 0.42, 0.75)
    colour = s.mix(s.math("MULTIPLY", dust, 0.12), s.tint(), (0.42, 0.24, 0.15))
    paint = s.done(colour, 0.4, Coat_Weight=0.35, Coat_Roughness=0.08)
    red, cream = (0.60, 0.008, 0.006), (0.88, 0.80, 0.62)
    pile = Pile()
    pile.rounded((0, 0, 0.60), (1.46, 0.60, 0.29), 4.5, red)
    pile.rounded((0.92, 0, 0.74), (0.56, 0.42, 0.24), 3.2, red)  # bonnet
    pile.rounded((-1.02, 0, 0.72), (0.46, 0.46, 0.22), 3.0, red)
    for x in (-0.92, 0.92):
        for side in (-1, 1):
            pile.rounded((x, side * 0.55, 0.62), (0.47, 0.15, 0.22), 2.8, red)
    pile.sheet(cabin_patch(0, 0.99, 0, 360, 0), red)
    pile.rounded((-0.29, 0, 1.41), (0.63, 0.46, 0.075), 3.2, cream)
    for side in (-1, 1):
        pile.box((0, side * 0.605, 0.56), (1.25, 0.03, 0.09), cream)
    pile.put("body", paint, even=True, parent=body)

    pile = Pile()
    for first, last in [(-35, 35), (145, 215), (47, 87), (93, 134), (226, 267), (273, 313)]:
        pile.sheet(cabin_patch(0.14, 0.82, first, last, 0.012), (0.03, 0.05, 0.07))
    s = Surface("windscreen")
    pile.put(
        "windows",
        s.done((0.035, 0.06, 0.085), 0.04, Specular_IOR_Level=0.8),
        even=True,
        parent=body,
    )

    pile = Pile()
    silver = (0.75, 0.75, 0.76)
    for x in (1.52, -1.52):
        pts = [
            (x - math.copysign(0.14, x), y, 0.43) if abs(y) > 0.5 else (x, y, 0.43)
            for y in np.linspace(-0.66, 0.66, 9)
        ]
        pile.tube(pts, [0.055] * 9, silver)
    for side in (-1, 1):
        pile.rounded((1.30, side * 0.50, 0.76), (0.1, 0.15, 0.15), 2, silver)
        pile.rounded((0.45, side * 0.72, 0.98), (0.05, 0.07, 0.06), 2.5, silver)
    for i in range(5):
        pile.box((1.475, 0, 0.56 + 0.045 * i), (0.03, 0.5, 0.02), silver)
    for side in (-1, 1):
        pile.tube([(-0.75, side * 0.36, 1.52), (0.2, side * 0.36, 1.52)], [0.022, 0.022], silver)
    s = Surface("chrome")
    pile.put("chrome", s.done(silver, 0.22, Metallic=1.0), even=True, parent=body)

    pile = Pile()
    for side in (-1, 1):
        pile.rounded((1.37, side * 0.50, 0.76), (0.07, 0.115, 0.115), 2, (1.0, 0.92, 0.66))
        pile.rounded((-1.42, side * 0.48, 0.72), (0.05, 0.07, 0.09), 2.5, (0.8, 0.05, 0.02))
    s = Surface("lamps")
    pile.put(
        "lamps",
        s.done(s.tint(), 0.2, Emission_Color=s.tint(), Emission_Strength=0.25),
        even=True,
        parent=body,
    )

    pile = Pile()
    pile.rounded((-0.38, 0.02, 1.66), (0.30, 0.34, 0.12), 6, (0.36, 0.17, 0.06))
    pile.rounded((0.06, -0.10, 1.63), (0.12, 0.26, 0.10), 5, (0.05, 0.36, 0.38))
    pile.rounded((-0.36, -0.02, 1.83), (0.22, 0.27, 0.075), 5, (0.80, 0.55, 0.10))
    for x in (-0.52, -0.24):
        pile.box((x, 0.02, 1.66), (0.05, 0.70, 0.255), (0.12, 0.06, 0.03))
    pile.put("luggage", painted("leather", 0.6, 7, 0.25, 0.01), even=True, parent=body)

    tyre = Pile()
    a = np.linspace(0, 2 * math.pi, 36, endpoint=False)[None]
    profile = np.array(
        [
            (0.20, -0.10),
            (0.27, -0.115),
            (0.325, -0.08),
            (0.335, 0),
            (0.325, 0.08),
            (0.27, 0.115),
            (0.20, 0.10),
        ]
    )
    r, y = profile[:, :1], profile[:, 1:]
    tyre.sheet(
        np.stack(np.broadcast_arrays(np.cos(a) * r, y, np.sin(a) * r), -1),
        (0.022, 0.021, 0.022),
        around=True,
    )
    for side in (-1, 1):
        tyre.tube([(0, side * 0.06, 0), (0, side * 0.085, 0)], [0.21, 0.20], cream, 32)
        tyre.rounded((0, side * 0.09, 0), (0.075, 0.03, 0.075), 2.2, (0.6, 0.03, 0.02))
        for k in range(8):
            b = k * math.pi / 4
            tyre.rounded(
                (0.14 * math.cos(b), side * 0.085, 0.14 * math.sin(b)),
                (0.025, 0.012, 0.025),
                2,
                (0.08, 0.07, 0.06),
            )
    rubber = tyre.mesh("wheel", painted("rubber", 0.55, 8, 0.2, 0.01), even=True)
    wheels = [
        place(rubber, (x, side * 0.60, 0.335), parent=body)
        for x in (-0.92, 0.92)
        for side in (-1, 1)
    ]
    return body, wheels


def birds() -> list[tuple[Any, list[Any]]]:
    """Three birds, each with two wings to flap."""
    s = Surface("feather")
    dark = s.done((0.09, 0.08, 0.09), 0.8)
    flock = []
    for _ in range(3):
        body = Pile()
        body.rounded((0, 0, 0), (0.30, 0.09, 0.08), 2.2, (0, 0, 0))
        middle = body.put("bird", dark, even=True)
        wings = []
        for side in (-1, 1):
            wing = Pile()
            wing.add(
                [
                    (0.14, 0, 0),
                    (0.06, side * 0.45, 0.03),
                    (-0.12, side * 0.85, 0),
                    (-0.1, side * 0.4, 0),
                    (-0.14, 0, 0),
                ],
                [[0, 1, 2, 3, 4]],
                (0, 0, 0),
            )
            wings.append(wing.put("wing", dark, parent=middle))
        flock.append((middle, wings))
    return flock


def build() -> Callable[[int], None]:
    """The whole scene; what comes back moves it to a frame (from 0)."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.world = bpy.data.worlds.new("world")
    sky(scene.world)
    scene.world.cycles.sampling_method = "NONE"  # else it is measured again for every frame
    rng = np.random.default_rng(SEED)
    leaf = leafy()
    land(rng, leaf)
    house(rng)
    woods(rng, leaf)
    fence(rng)
    body, wheels = car()
    flock = birds()

    sun = bpy.data.objects.new("sun", bpy.data.lights.new("sun", "SUN"))
    sun.data.energy, sun.data.angle, sun.data.color = 4.2, math.radians(2.2), (1.0, 0.86, 0.66)
    sun.rotation_euler = Vector((-0.62, -0.42, 0.62)).to_track_quat("Z", "Y").to_euler()
    bpy.context.collection.objects.link(sun)
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.data.lens = 36
    bpy.context.collection.objects.link(camera)
    scene.camera = camera

    def move(frame: int) -> None:
        t = frame / (FRAMES - 1)
        eye = Vector((-2.3 + 4.6 * t, -10.3 + 0.9 * t, 3.0 - 0.25 * t))
        aim = Vector((-1.8 + 3.3 * t, 2.0, 1.72))
        camera.location = eye
        camera.rotation_euler = (aim - eye).to_track_quat("-Z", "Y").to_euler()

        x = car_place(frame)
        slope = float(lane(x + 0.05) - lane(x - 0.05)) / 0.1
        y = float(lane(x))
        ahead, behind = float(height(x + 0.9, lane(x + 0.9))), float(height(x - 0.9, lane(x - 0.9)))
        shake = 0.012 * math.sin(9.1 * x) + 0.008 * math.sin(14.3 * x + 1)
        body.location = (x, y, (ahead + behind) / 2 + shake + 0.01)
        body.rotation_euler = (
            0.010 * math.sin(7.3 * x),
            -math.atan2(ahead - behind, 1.8) + 0.010 * math.sin(8.2 * x + 2),
            math.atan(slope),
        )
        for wheel in wheels:
            wheel.rotation_euler = (0, x * math.hypot(1, slope) / 0.335, 0)

        for i, (bird, wings) in enumerate(flock):
            s = frame / RATE
            bird.location = (
                7.5 + 1.5 * i - 2.1 * s,
                19 + 1.3 * i,
                8.1 + 0.5 * math.sin(2.2 * i) + 0.12 * math.sin(2 * s + i),
            )
            bird.rotation_euler = (0, 0.1, math.pi + 0.15)
            flap = 0.15 + 0.55 * math.sin(2 * math.pi * (1.9 * s + 0.37 * i))
            wings[0].rotation_euler, wings[1].rotation_euler = (-flap, 0, 0), (flap, 0, 0)
        ripple = bpy.data.materials["water"].node_tree.nodes["ripple"]
        ripple.inputs["W"].default_value = 0.5 * frame / RATE
        scene.world.node_tree.nodes["drift"].inputs["Location"].default_value = (
            3.1 + 0.012 * frame / RATE,
            0.6,
            0,
        )
        scene.cycles.seed = frame

    return move


def car_place(frame: float) -> float:
    """Where (x) the car is."""
    return -5.4 + 8.8 * frame / (FRAMES - 1)


def draw(frames: Sequence[int], folder: Path, samples: int) -> None:
    """Render these frames (from 0) to PNG files."""
    move = build()
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.render.resolution_x, scene.render.resolution_y = WIDTH, HEIGHT
    scene.render.resolution_percentage = 100
    scene.render.threads_mode, scene.render.threads = "FIXED", 1
    scene.render.use_persistent_data = True
    scene.render.image_settings.file_format = "PNG"
    cycles = scene.cycles
    cycles.device, cycles.samples, cycles.use_adaptive_sampling = "CPU", samples, False
    cycles.use_denoising, cycles.denoiser = True, "OPENIMAGEDENOISE"
    cycles.denoising_prefilter = "FAST"
    cycles.max_bounces, cycles.diffuse_bounces, cycles.glossy_bounces = 2, 1, 2
    cycles.transmission_bounces, cycles.sample_clamp_indirect = 1, 2.0
    cycles.use_fast_gi, cycles.ao_bounces_render = True, 1
    cycles.use_light_tree, cycles.caustics_reflective = False, False
    scene.world.light_settings.distance = 6.0
    scene.world.light_settings.ao_factor = 1.0
    cycles.pixel_filter_type, cycles.filter_width = "BLACKMAN_HARRIS", 1.5
    scene.view_settings.view_transform = "Filmic"
    scene.view_settings.look = "Very High Contrast"
    scene.view_settings.exposure = 0.2
    for frame in frames:
        move(frame)
        scene.render.filepath = str(folder / f"{frame + 1:04d}.png")
        bpy.ops.render.render(write_still=True)


# --- the sound -------------------------------------------------------------------------------


def pluck(rng: np.random.Generator, pitch: float, seconds: float) -> Array:
    """A plucked string: noise that goes round a loop and softens."""
    loop = round(SOUND_RATE / pitch)
    burst = np.convolve(rng.uniform(-1, 1, loop), np.ones(6) / 6, "same")
    burst = burst - burst.mean()
    rounds = math.ceil(seconds * SOUND_RATE / loop)
    sound = []
    for _ in range(rounds):
        sound.append(burst)
        burst = 0.996 * (0.5 * burst + 0.5 * np.roll(burst, 1))
    out = np.concatenate(sound)[: round(seconds * SOUND_RATE)]
    return out * np.minimum(1, np.linspace(len(out) / 600, 0, len(out)))


def sound() -> Array:
    """Left and right (2, samples): a tune on a plucked string, the passing car, birds."""
    rng = np.random.default_rng(SEED)
    n = SOUND_RATE * FRAMES // RATE
    t = np.arange(n) / SOUND_RATE
    out = np.zeros((2, n))

    def add(voice: Array, start: float, pan: Any, loud: float) -> None:
        first = round(start * SOUND_RATE)
        voice = voice[: n - first] * loud
        pan = np.broadcast_to(pan, len(voice)) * math.pi / 2
        out[0, first : first + len(voice)] += voice * np.cos(pan)
        out[1, first : first + len(voice)] += voice * np.sin(pan)

    tune = [
        (0, 67),
        (0.5, 71),
        (0.75, 72),
        (1.0, 74),
        (1.5, 71),
        (2.0, 76),
        (2.25, 74),
        (2.5, 71),
        (3.0, 69),
        (3.25, 71),
        (3.5, 67),
    ]
    for beat, key in tune:
        add(pluck(rng, 440 * 2 ** ((key - 69) / 12), 1.4), beat, 0.6, 0.55)
    for beat, key in [(0, 43), (0, 55), (1, 50), (1, 59), (2, 48), (2, 55), (3, 50), (3, 54)]:
        add(pluck(rng, 440 * 2 ** ((key - 69) / 12), 1.6), beat, 0.4, 0.40)

    turn = 2 * math.pi * np.cumsum(46 + 5 * np.sin(2 * math.pi * 0.4 * t)) / SOUND_RATE
    hum = sum(np.sin(k * turn + 0.7 * k) / k**1.1 for k in range(1, 9)) * (
        1 + 0.25 * np.sin(turn / 2)
    )
    grit = np.convolve(rng.normal(0, 1, n), np.hanning(40) / 20, "same")
    x = np.array([car_place(s * RATE) for s in t])
    near = 1 / (1 + 0.05 * (x - 1.5) ** 2)
    add((0.9 * hum + 0.5 * grit) * near, 0, np.clip(0.5 + x / 14, 0, 1), 0.055)

    for start, base, pan in [
        (0.3, 3400, 0.15),
        (0.55, 3700, 0.15),
        (1.35, 2900, 0.85),
        (1.5, 3100, 0.85),
        (1.65, 3300, 0.85),
        (2.7, 3600, 0.3),
        (3.05, 3000, 0.75),
    ]:
        s = np.arange(round(0.13 * SOUND_RATE)) / SOUND_RATE
        sweep = 2 * math.pi * np.cumsum(base + 700 * np.sin(2 * math.pi * 9 * s)) / SOUND_RATE
        add(np.sin(sweep) * np.sin(math.pi * s / 0.13) ** 2, start, pan, 0.07)
    wind = np.convolve(rng.normal(0, 1, n + 2000), np.hanning(200) / 100, "same")
    out += 0.02 * np.stack([wind[:n], wind[2000:]])
    out *= np.minimum(1, np.minimum(t / 0.02, (t[-1] - t) / 0.25))
    return 0.7 * out / np.abs(out).max()


# --- the file --------------------------------------------------------------------------------


def write(folder: Path, target: Path) -> None:
    """The PNG files and the sound as H.264 and AAC in MP4."""
    options = {"crf": "24", "preset": "veryslow"}
    with av.open(str(target), "w", format="mp4", options={"movflags": "+faststart"}) as box:
        box.metadata["title"] = "FreSCo Bridge sample clip"
        box.metadata["copyright"] = "CC0-1.0"
        video: Any = box.add_stream("libx264", rate=RATE, options=options)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.time_base = Fraction(1, RATE)
        context = video.codec_context
        context.thread_count, context.gop_size = 1, RATE
        context.color_primaries = context.color_trc = context.colorspace = 1  # BT.709
        context.color_range = 1  # limited
        audio: Any = box.add_stream("aac", rate=SOUND_RATE, layout="stereo")
        audio.bit_rate = 96000
        for i in range(FRAMES):
            with av.open(str(folder / f"{i + 1:04d}.png")) as picture:
                rgb = next(picture.decode(video=0)).to_ndarray(format="rgb24")
            frame = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(
                format="yuv420p",
                dst_colorspace="ITU709",
                dst_color_range="MPEG",
                interpolation="LANCZOS",
            )
            frame.pts, frame.time_base = i, Fraction(1, RATE)
            box.mux(video.encode(frame))
        box.mux(video.encode(None))
        wave = av.AudioFrame.from_ndarray(sound().astype(np.float32), "fltp", "stereo")
        wave.sample_rate, wave.pts, wave.time_base = SOUND_RATE, 0, Fraction(1, SOUND_RATE)
        box.mux(audio.encode(wave))
        box.mux(audio.encode(None))


def main() -> None:
    """Render and write."""
    parser = argparse.ArgumentParser(description="Render the sample clip.")
    parser.add_argument("target", type=Path, nargs="?", help="the clip, such as demo.mp4")
    parser.add_argument("--pictures", type=Path, help="keep the frames in this folder, as PNG")
    parser.add_argument("--frames", help="only these, from 1, such as 1,48,96; writes no clip")
    parser.add_argument("--samples", type=int, default=8, help="rays for each pixel")
    args = parser.parse_args()
    if not args.frames and not args.target:
        parser.error("say where the clip goes, or which --frames to draw into which --pictures")
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.pictures or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        chosen = [int(i) - 1 for i in args.frames.split(",")] if args.frames else range(FRAMES)
        draw(chosen, folder, args.samples)
        if not args.frames:
            write(folder, args.target)


if __name__ == "__main__":
    main()
