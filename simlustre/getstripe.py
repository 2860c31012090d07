"""`lfs getstripe`: layouts in the words of each version of Lustre.

Plain text stands under the path; `-y` has no path. A composite file prints all its components, but only the
last initialised one when single attributes are asked for.
"""

from __future__ import annotations

import errno
import os
import stat

from simlustre import compact
from simlustre.errors import Refusal
from simlustre.files import contact, mdt_of, read_attribute
from simlustre.layout import ATTRIBUTE, EOF, RELEASED, Component, Wish, fid_text, object_fid_text
from simlustre.options import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simlustre.call import Call
    from simlustre.layout import Layout
    from simlustre.options import Options
    from simlustre.state import Filesystem

LETTERS = "cgiSpLFmydvqrRD"
WORDS = {
    "stripe-count": "c", "count": "c", "generation": "g", "stripe-index": "i", "index": "i",
    "stripe-size": "S",
    "size": "S", "pool": "p", "layout": "L", "fid": "F", "mdt": "m", "mdt-index": "m", "yaml": "y",
    "directory": "d", "verbose": "v", "quiet": "q", "recursive": "r", "raw": "R", "default": "D",
    "comp-count": "comp-count", "component-count": "comp-count",
}  # fmt: skip
# In the order in which they are printed, whatever the order of the options.
ATTRIBUTES = ("F", "comp-count", "c", "S", "L", "g", "i", "p", "m")
# From this version on components are a YAML list.
LISTED_COMPONENTS = (2, 16)


def getstripe(call: Call) -> int:
    options = parse(call.arguments, LETTERS, WORDS)
    code = 0
    for path in options.operands:
        try:
            _Printer(call, options).visit(path)
        except Refusal as error:
            code = code or error.code
        except OSError as error:
            call.complain(f"error: getstripe failed for {path}.")
            code = code or error.errno or 1
    return code


class _Printer:
    """Prints what the options ask for, of one path and what is under it."""

    def __init__(self, call: Call, options: Options) -> None:
        self.call = call
        self.asked = [name for name in ATTRIBUTES if name in options]
        self.yaml = "y" in options
        self.verbose = "v" in options
        self.only_directory = "d" in options
        self.recursive = "r" in options
        self.listed = call.state.version() >= LISTED_COMPONENTS

    def visit(self, path: str, depth: int = 0) -> None:
        status = os.stat(path)
        fs = self.call.state.filesystem_of(path)
        if fs is None:
            self.call.complain(f"error: getstripe: '{path}' not on a Lustre fs?")
            raise Refusal(errno.ENOTTY)
        if stat.S_ISDIR(status.st_mode):
            self._directory(fs, path)
            if not self.only_directory and (depth == 0 or self.recursive):
                for entry in list(os.scandir(path)):
                    if entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False):
                        self.visit(entry.path, depth + 1)
        elif stat.S_ISREG(status.st_mode):
            self._file(fs, path)
        else:
            self.call.say(f"{path} has no stripe info")

    # Files.

    def _file(self, fs: Filesystem, path: str) -> None:
        try:
            layout = contact(self.call.state, fs, path)
        except Refusal:
            self.call.say(f"{path} has no stripe info")
            return
        if self.call.fault is not None and self.call.fault.get("stale_getstripe") and layout.former:
            layout.components = layout.former
        if self.asked:
            self._attributes(layout)
            return
        if not self.yaml:
            self.call.say(path)
        if not layout.composite:
            for line in self._component_lines(layout, layout.components[0]):
                self.call.say(line)
        elif (self.yaml and self.listed) or self.verbose:
            self._listed_components(layout)
        else:
            self._components(layout)
        if not layout.composite:
            self.call.say("")

    def _attributes(self, layout: Layout) -> None:
        component = layout.last_initialised()
        values = {
            "F": ("lmm_fid:           ", f"[{fid_text(layout.fid)}]"),
            "comp-count": ("lcm_entry_count:   ", str(len(layout.components) if layout.composite else 0)),
            "m": ("lmm_mdt_index:     ", str(layout.mdt)),
            **self._values(layout, component),
        }
        if len(self.asked) == 1 and not self.yaml:
            self.call.say(values[self.asked[0]][1])
            return
        lines = ["".join(values[name]) for name in self.asked if values[name][1] or name != "p"]
        if layout.composite:
            if self.listed:
                lines = ["components:", f"  - lcme_id:             {component.number}", "    sub_layout:",
                         *("      " + line for line in lines)]  # fmt: skip
            else:
                place = layout.components.index(component)
                lines = [f"  component{place}:", "    sub_layout:", *("      " + line for line in lines)]
        for line in lines:
            self.call.say(line)
        if not self.listed:
            self.call.say("")

    def _values(self, layout: Layout, component: Component) -> dict[str, tuple[str, str]]:
        """{option: (name, value)} of one component, as Lustre pads them."""
        wish = component.wish
        mdt = wish.pattern == "mdt"
        offset = 0 if mdt else component.osts[0] if component.osts else -1
        count = 0 if mdt else len(component.osts) or wish.count
        pattern = wish.pattern + (",released" if layout.hsm & RELEASED else "")
        if "foreign" in layout.flags:
            pattern = "foreign"
        return {
            "c": ("lmm_stripe_count:  ", str(count)),
            "S": ("lmm_stripe_size:   ", str(wish.size)),
            "L": ("lmm_pattern:       ", pattern),
            "g": ("lmm_layout_gen:    ", str(0 if layout.composite else layout.generation)),
            "i": ("lmm_stripe_offset: ", str(offset)),
            "p": ("lmm_pool:          ", wish.pool or ""),
        }

    def _component_lines(self, layout: Layout, component: Component) -> list[str]:
        """The `lmm_` lines, without indentation, and the objects."""
        lines = []
        if self.verbose:
            fid = fid_text(layout.fid)
            sequence, identifier, _ = fid.split(":")
            lines += ["lmm_magic:         0x0BD10BD0", f"lmm_seq:           {sequence}",
                      f"lmm_object_id:     {identifier}", f"lmm_fid:           [{fid}]"]  # fmt: skip
        values = self._values(layout, component)
        lines += ["".join(values[name]) for name in ("c", "S", "L", "g", "i", "p") if values[name][1]]
        objects = [] if layout.hsm & RELEASED else list(zip(component.osts, component.objects, strict=True))
        if not objects:
            return lines
        if self.yaml:
            lines.append("lmm_objects:")
            indent = "" if layout.composite else "      "
            for ost, number in objects:
                lines += [
                    f"{indent}- l_ost_idx: {ost}",
                    f"{indent}  l_fid:     {object_fid_text(ost, number)}",
                ]
        elif layout.composite:
            lines.append("lmm_objects:")
            for place, (ost, number) in enumerate(objects):
                lines.append(f"- {place}: {{ l_ost_idx: {ost}, l_fid: [{object_fid_text(ost, number)}] }}")
        else:
            lines.append("\tobdidx\t\t objid\t\t objid\t\t group")
            for ost, number in objects:
                lines.append(f"\t{ost:6d}\t{number:14d}\t{number:#13x}\t{0:14d}")
        return lines

    def _components(self, layout: Layout) -> None:
        """All components, as they are printed under `lcm_` lines."""
        say = self.call.say
        say(f"  lcm_layout_gen:    {layout.generation}")
        say("  lcm_mirror_count:  1")
        say(f"  lcm_entry_count:   {len(layout.components)}")
        for place, component in enumerate(layout.components):
            if self.yaml:
                say(f"  component{place}:")
            for line in _entry_lines(component, str(component.number), "0"):
                say("    " + line)
            if self.yaml:
                say("    sub_layout:")
            for line in self._component_lines(layout, component):
                say("      " + line)
            say("")

    def _listed_components(self, layout: Layout) -> None:
        """All components as a YAML list."""
        say = self.call.say
        if self.verbose:
            say("composite_header:")
        indent = "  " if self.verbose else ""
        if self.verbose:
            say("  lcm_magic:         0x0BD60BD0")
        say(f"{indent}lcm_layout_gen:    {layout.generation}")
        say(f"{indent}lcm_mirror_count:  1")
        say(f"{indent}lcm_entry_count:   {len(layout.components)}")
        say("components:")
        for component in layout.components:
            first, *others = _entry_lines(component, str(component.number), "0")
            say("  - " + first)
            for line in others:
                say("    " + line)
            say("    sub_layout:")
            for line in self._component_lines(layout, component):
                say("      " + line)
            say("")

    # Directories.

    def _directory(self, fs: Filesystem, path: str) -> None:
        if self.asked == ["m"]:
            self.call.say(str(mdt_of(self.call.state, fs, os.path.realpath(path))))
            return
        text = read_attribute(self.call.state, path, ATTRIBUTE)
        wishes, composite = fs.defaults, fs.composite
        if text is not None:
            fields = compact.loads(text)
            wishes, composite = [Wish.from_dict(wish) for wish in fields["default"]], fields["composite"]
        say = self.call.say
        if self.asked:
            values = dict(self._default_values(wishes[-1]))
            names = {"c": "stripe_count:  ", "S": "stripe_size:   ", "L": "pattern:       ",
                     "i": "stripe_offset: ", "p": "pool:          "}  # fmt: skip
            found = [(names[name], values.get(names[name], "")) for name in self.asked if name in names]
            if len(self.asked) == 1 and not self.yaml:
                say(found[0][1] if found else "0")
            else:
                for name, value in found:
                    say(name + value)
            return
        if not self.yaml:
            say(path)
        if not composite:
            self._default(wishes[0], "")
        else:
            say("  lcm_layout_gen:    0")
            say("  lcm_mirror_count:  1")
            say(f"  lcm_entry_count:   {len(wishes)}")
            start = 0
            for place, wish in enumerate(wishes):
                if self.yaml:
                    say(f"  component{place}:")
                for line in _entry_lines(Component(0, start, wish), "N/A", "N/A"):
                    say("    " + line)
                if self.yaml:
                    say("    sub_layout:")
                self._default(wish, "      ")
                say("")
                start = wish.end
        if not composite:
            say("")

    def _default(self, wish: Wish, indent: str) -> None:
        values = self._default_values(wish)
        if self.yaml:
            for name, value in values:
                self.call.say(indent + name + value)
        else:
            self.call.say(indent + (" " + indent).join(name + value for name, value in values))

    def _default_values(self, wish: Wish) -> list[tuple[str, str]]:
        pattern = (
            "0" if self.call.state.version()[:2] == (2, 14) and wish.pattern == "raid0" else wish.pattern
        )
        values = [
            ("stripe_count:  ", str(0 if wish.pattern == "mdt" else wish.count)),
            ("stripe_size:   ", str(wish.size)),
            ("pattern:       ", pattern),
            ("stripe_offset: ", str(wish.index)),
        ]
        return [*values, ("pool:          ", wish.pool)] if wish.pool else values


def _entry_lines(component: Component, number: str, mirror: str) -> list[str]:
    end = "EOF" if component.wish.end == EOF else str(component.wish.end)
    return [
        f"lcme_id:             {number}",
        f"lcme_mirror_id:      {mirror}",
        f"lcme_flags:          {'init' if component.initialised else '0'}",
        f"lcme_extent.e_start: {component.start}",
        f"lcme_extent.e_end:   {end}",
    ]
