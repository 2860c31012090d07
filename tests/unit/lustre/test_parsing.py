import time

import pytest

from cyclone.lustre import parsing
from cyclone.lustre.parsing import Layout, Ost, Usage

# lfs check osts

CHECK = """\
lustre-OST0000-osc-ffff8ea7b7a28000 active.
lustre-OST0002-osc-ffff8ea7b7a28000 active.
"""
CHECK_ERRORS = """\
lfs check: error: check 'lustre-OST0001-osc-ffff8ea7b7a28000': Cannot send after transport endpoint shutdown (108)
"""


def test_an_ost_that_only_stderr_tells_of_is_not_active():
    found = parsing.osts(CHECK, CHECK_ERRORS, "lustre")

    reason = "Cannot send after transport endpoint shutdown (108)"
    assert found == {
        0: Ost(0, "lustre-OST0000", True, ""),
        1: Ost(1, "lustre-OST0001", False, reason),
        2: Ost(2, "lustre-OST0002", True, ""),
    }


def test_an_inactive_ost_is_deactivated():
    found = parsing.osts("lustre-OST0003-osc-ffff8ea7b7a28000 inactive.\n", "", "lustre")

    assert found == {3: Ost(3, "lustre-OST0003", False, "deactivated")}


def test_only_the_file_system_that_was_asked_for_counts():
    text = (
        CHECK + "lustre2-OST0007-osc-ffff8ea7b7a29000 active.\nscratch-OST0000-osc-ffff8ea7b7a29000 active.\n"
    )

    assert list(parsing.osts(text, "", "lustre")) == [0, 2]
    assert list(parsing.osts(text, "", "lustre2")) == [7]


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_mounts_the_one_that_fails_counts(order):
    lines = [
        "lustre-OST0000-osc-ffff000000000001 active.\n",
        "lustre-OST0000-osc-ffff000000000002 inactive.\n",
    ]

    found = parsing.osts("".join(lines[::order]), "", "lustre")

    assert found == {0: Ost(0, "lustre-OST0000", False, "deactivated")}


def test_indexes_may_be_in_upper_case():
    assert parsing.osts("lustre-OST00AF-osc-ffff8ea7b7a28000 active.\n", "", "lustre") == {
        0xAF: Ost(0xAF, "lustre-OST00af", True, "")
    }


def test_lines_that_are_not_understood_disturb_nobody():
    text = f"warning: something new\n\x00\udcff\n{CHECK}lustre-MDT0000-mdc-ffff8ea7b7a28000 active.\n"

    assert list(parsing.osts(text, "", "lustre")) == [0, 2]


def test_a_file_system_that_is_not_mounted_is_told():
    with pytest.raises(ValueError, match="no file system 'scratch'"):
        parsing.osts(CHECK, "", "scratch")


@pytest.mark.parametrize("piece", ["'", "a-OST0000-osc-", "'a-OST0000-osc-", "a-OST0000-osc-x ", "':"])
def test_any_text_is_gone_through_once(piece):
    # 8 MB: gone through anew at each piece, they take more minutes than a test is given.
    text = (piece * (8000 // len(piece)) + "\n") * 1000

    with pytest.raises(ValueError, match=r"expected states of OSTs|no file system"):
        parsing.osts("", text, "lustre")


# lfs df

DF = """\
UUID                   1K-blocks        Used   Available Use% Mounted on
lustre-MDT0000_UUID    122878584     2087584   118695000   2% /lustre[MDT:0]
lustre-OST0000_UUID   3865470566  3113851290   613416960  84% /lustre[OST:0]
lustre-OST0001_UUID   3865470566  3328599654   495452160  88% /lustre[OST:1] D
OST0002             : inactive device
lustre-OST0003_UUID   3865470566  3865470566           0 100% /lustre[OST:3] SR
OST0004             : Input/output error

filesystem_summary:  11596411698 10307921510  1108869120  91% /lustre

"""


def test_the_usage_of_each_ost_is_read_and_rows_with_errors_are_unknown():
    found = parsing.usage(DF)

    assert found == {
        0: Usage(0, 3865470566, 3113851290, 613416960, ""),
        1: Usage(1, 3865470566, 3328599654, 495452160, "D"),
        3: Usage(3, 3865470566, 3865470566, 0, "SR"),
    }


def test_the_fill_is_finer_than_the_percent_that_is_printed():
    assert parsing.usage(DF)[0].fill == pytest.approx(83.5425, abs=1e-4)
    assert Usage(0, 0, 0, 0, "").fill == 0.0


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("lustre-OST0005_UUID 100 40 60 40%  /lustre[OST:5] D(01000)", Usage(5, 100, 40, 60, "D(01000)")),
        ("lustre-OST0005_UUID 100 40 60  40% /lustre[OST:5] ", Usage(5, 100, 40, 60, "")),
        ("lustre-OST2710_UUID 100 40 60  40% /lustre[OST:10000]", Usage(10000, 100, 40, 60, "")),
        ("a-very-long-name-of-it-OST0005_UUID 100 40 60 40% /l[OST:5] f", Usage(5, 100, 40, 60, "f")),
        ("lustre-OST0005_UUID 100 40 60 40% /my files 50% [OST:9]/x[OST:5]", Usage(5, 100, 40, 60, "")),
        ("lustre-OST0005_UUID 0 0 0 - /lustre[OST:5] N", Usage(5, 0, 0, 0, "N")),
    ],
)
def test_rows_are_read_from_their_tail(row, expected):
    assert parsing.usage(f"{row}\n") == {expected.index: expected}


def test_no_ost_at_all_is_an_answer_as_long_as_it_is_one():
    rows = DF.splitlines(keepends=True)

    assert parsing.usage("".join(rows[:2] + rows[-3:])) == {}


def test_an_index_that_no_ost_can_have_is_passed_over():
    assert parsing.usage(DF + "x 1 1 1 1% /l[OST:70000]\n").keys() == {0, 1, 3}


# lfs getstripe

PLAIN = """\
/lustre/f
lmm_stripe_count:  1
lmm_stripe_size:   1048576
lmm_pattern:       raid0
lmm_layout_gen:    0
lmm_stripe_offset: 3
lmm_pool:          hdd
\tobdidx\t\t objid\t\t objid\t\t group
\t     3\t            34\t          0x22\t              0

"""
PLAIN_YAML = """\
lmm_stripe_count:  2
lmm_stripe_size:   4194304
lmm_pattern:       raid0
lmm_layout_gen:    0
lmm_stripe_offset: 3
lmm_objects:
      - l_ost_idx: 3
        l_fid:     0x100030000:0x22:0x0
      - l_ost_idx: 9
        l_fid:     0x100090000:0x2:0x0

"""
COMPOSITE_2_15 = """\
  lcm_layout_gen:    4
  lcm_mirror_count:  1
  lcm_entry_count:   3
  component0:
    lcme_id:             1
    lcme_mirror_id:      0
    lcme_flags:          init
    lcme_extent.e_start: 0
    lcme_extent.e_end:   1048576
    sub_layout:
      lmm_stripe_count:  1
      lmm_stripe_size:   65536
      lmm_pattern:       raid0
      lmm_layout_gen:    0
      lmm_stripe_offset: 7
      lmm_pool:          ssd
      lmm_objects:
      - 0: { l_ost_idx: 7, l_fid: [0x100070000:0x2:0x0] }

  component1:
    lcme_id:             2
    lcme_mirror_id:      0
    lcme_flags:          init
    lcme_extent.e_start: 1048576
    lcme_extent.e_end:   EOF
    sub_layout:
      lmm_stripe_count:  2
      lmm_stripe_size:   1048576
      lmm_pattern:       raid0
      lmm_layout_gen:    0
      lmm_stripe_offset: 2
      lmm_objects:
      - 0: { l_ost_idx: 2, l_fid: [0x100020000:0x2:0x0] }
      - 1: { l_ost_idx: 7, l_fid: [0x100070000:0x3:0x0] }

  component2:
    lcme_id:             3
    lcme_flags:          0
    sub_layout:
      lmm_stripe_count:  4
      lmm_stripe_offset: -1

"""
COMPOSITE_2_16 = (
    COMPOSITE_2_15.replace("  component0:\n    lcme_id:  ", "components:\n  - lcme_id:")
    .replace("  component1:\n    lcme_id:  ", "  - lcme_id:")
    .replace("  component2:\n    lcme_id:  ", "  - lcme_id:")
)


def plain(osts, count=1, size=1048576, pool="", **more):
    known = {"composite": False, "on_mdt": False, "released": False, "foreign": False, "exists": True, **more}
    return Layout(osts, count, size, pool, **known)


def test_a_plain_file():
    assert parsing.layout(PLAIN, "/lustre/f") == plain((3,), pool="hdd")


def test_a_plain_file_in_yaml():
    assert parsing.layout(PLAIN_YAML, "/lustre/f") == plain((3, 9), count=2, size=4194304)


@pytest.mark.parametrize("text", [COMPOSITE_2_15, COMPOSITE_2_16])
def test_a_composite_file_lies_on_the_osts_of_all_its_components(text):
    found = parsing.layout(text, "/lustre/f")

    assert found == plain((7, 2), size=65536, pool="ssd", composite=True)


@pytest.mark.parametrize(
    "text",
    [
        "  component1:\n    sub_layout:\n      lmm_stripe_count:  1\n      lmm_stripe_offset: 7\n\n",
        "components:\n  - lcme_id:             2\n    sub_layout:\n"
        "      lmm_stripe_count:  1\n      lmm_stripe_offset: 7\n",
    ],
)
def test_the_short_answer_for_a_composite_file(text):
    assert parsing.layout(text, "/lustre/f") == plain((7,), size=0, composite=True)


def test_the_short_answer_for_a_plain_file():
    text = "lmm_stripe_count:  1\nlmm_stripe_offset: 542\n\n"

    assert parsing.layout(text, "/lustre/f") == plain((542,), size=0)


def test_a_component_on_an_mdt_has_no_objects():
    dom = "lmm_stripe_count:  0\nlmm_stripe_size:   1048576\nlmm_pattern:       mdt\nlmm_stripe_offset: 0\n"

    alone = parsing.layout(dom, "/lustre/f")
    before_others = parsing.layout(
        f"  lcm_entry_count:   4\n  component0:\n    lcme_id: 1\n{dom}"
        + COMPOSITE_2_15.split("count:   3\n")[1],
        "/lustre/f",
    )

    assert alone == plain((), count=0, size=0, on_mdt=True)
    assert before_others == plain((7, 2), size=65536, pool="ssd", composite=True)


@pytest.mark.parametrize("pattern", ["raid0,released", "released", "raid0|released"])
def test_a_released_file_has_no_objects(pattern):
    text = f"lmm_stripe_count:  1\nlmm_stripe_size:   1048576\nlmm_pattern:       {pattern}\nlmm_stripe_offset: 0\n"

    assert parsing.layout(text, "/lustre/f") == plain((), count=0, size=0, released=True)


def test_a_foreign_layout_is_told():
    text = "lfm_magic:         0x0BD70BD0\nlfm_length:          45\nlfm_type:          0x00000000 (none)\n"

    assert parsing.layout(text, "/lustre/f") == plain((), count=0, size=0, foreign=True)


def test_a_file_without_layout():
    found = parsing.layout("/lustre/f has no stripe info\n", "/lustre/f")

    assert not found.exists
    assert found.osts == ()


def test_a_count_of_all_osts_is_counted():
    assert parsing.layout(PLAIN_YAML.replace("count:  2", "count:  -1"), "/lustre/f").stripe_count == 2


@pytest.mark.parametrize(
    "path",
    ["/l/lmm_stripe_count:  9", "/l/x\nlmm_stripe_offset: 9\nlmm_pattern: mdt", "/l/x has no stripe info",
     "/l/\udcff\n      - l_ost_idx: 5"],
)  # fmt: skip
def test_a_name_that_looks_like_a_layout_is_only_a_name(path):
    assert parsing.layout(PLAIN.replace("/lustre/f", path), path) == plain((3,), pool="hdd")
    assert parsing.layout(PLAIN_YAML, path) == plain((3, 9), count=2, size=4194304)
    assert not parsing.layout(f"{path} has no stripe info\n", path).exists


def test_an_ost_that_there_cannot_be_is_an_error():
    with pytest.raises(ValueError, match="indexes of OSTs"):
        parsing.layout(PLAIN_YAML.replace("l_ost_idx: 9", "l_ost_idx: 65536"), "/lustre/f")


def test_the_layout_of_a_directory_is_none_of_a_file():
    text = "stripe_count:  1 stripe_size:   1048576 pattern:       raid0 stripe_offset: -1\n"

    with pytest.raises(ValueError, match="expected the layout of a file"):
        parsing.layout(text, "/lustre/d")


# The others


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lfs 2.15.5\n", (2, 15, 5)),
        ("lfs 2.12.8_6_g5457c37\n", (2, 12, 8)),
        ("lfs 2.16.1-1.el9\n", (2, 16, 1)),
        ("lfs 2.14.0.21_ddn\n", (2, 14, 0, 21)),
    ],
)
def test_versions(text, expected):
    assert parsing.version(text) == expected


def test_servers_may_be_addresses_and_names():
    text = (
        "osc.lustre-OST0000-osc-ffff8ea7b7a28000.ost_conn_uuid=10.0.0.1@tcp\n"
        "osc.lustre-OST000A-osc-ffff8ea7b7a28000.ost_conn_uuid=oss-7.site.example@o2ib1\n"
        "osc.lustre-OST000b-osc-ffff8ea7b7a28000.ost_conn_uuid=fe80::21@tcp\n"
        "osc.lustre-OST000c-osc-ffff8ea7b7a28000.ost_conn_uuid=10.0.0.9\n"
        "osc.scratch-OST0000-osc-ffff8ea7b7a28000.ost_conn_uuid=10.0.0.2@tcp\n"
    )

    found = parsing.connections(text, "lustre")

    assert found == {0: "10.0.0.1", 10: "oss-7.site.example", 11: "fe80::21", 12: "10.0.0.9"}


def test_osts_that_were_switched_off():
    text = (
        "osc.lustre-OST0000-osc-ffff8ea7b7a28000.active=1\n"
        "osc.lustre-OST000a-osc-ffff8ea7b7a28000.active=0\n"
        "osc.lustre-OST000b-osc-ffff8ea7b7a28000.active=0\n"
        "osc.lustre-OST000b-osc-ffff9ea7b7a28000.active=1\n"
        "osc.scratch-OST0000-osc-ffff8ea7b7a28000.active=0\n"
    )

    assert parsing.deactivated(text, "lustre") == {10, 11}


def test_members_of_a_pool():
    text = "Pool: lustre.hdd\nlustre-OST0000_UUID\nlustre-OST001f_UUID\n"

    assert parsing.pool_members(text) == {0, 31}
    assert parsing.pool_members("Pool: lustre.empty\n") == frozenset()


def test_the_name_of_a_file_system():
    assert (
        parsing.file_system("OBDS:\n0: lustre-OST0000_UUID ACTIVE\n1: lustre-OST0001_UUID ACTIVE\n")
        == "lustre"
    )


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("/l/f: (0x00000009) exists archived, archive_id:1\n", {"exists", "archived"}),
        ("/l/f: (0x00000000)\n", set()),
        ("/l/f: (0x0000000d) released exists archived, archive_id:1", {"released", "exists", "archived"}),
        ("/l/f: (0x00000070)", {"never_release", "never_archive", "lost_from_hsm"}),
        ("/l/a: (0x00000004)\nb: (0x00000002) dirty", {"dirty"}),
    ],
)
def test_states_of_hsm(text, flags):
    assert parsing.hsm_state(text).flags == flags


@pytest.mark.parametrize(
    "text", ["[0x200000403:0x11f:0x0]\n", "/l/f: [0x200000403:0x11f:0x0]", "0x200000403:0x11f:0x0"]
)
def test_fids(text):
    assert parsing.fid(text) == "[0x200000403:0x11f:0x0]"


def test_the_mdt_of_a_directory():
    assert parsing.mdt("3\n") == 3


# Errors and hostile text


def test_the_last_error_is_told_with_all_its_lines():
    stderr = (
        "lfs migrate: cannot get lease on '/l/a\nb': Device or resource busy (16)\n"
        "error: lfs migrate: /l/a\nb\udcff: cannot get lease: Device or resource busy\n"
    )

    text = "error: lfs migrate: /l/a\\nb\\xff: cannot get lease: Device or resource busy"
    assert parsing.told(stderr) == text


def test_without_such_a_line_the_last_one_is_told():
    assert parsing.told("one\ntwo (2)\n\n") == "two (2)"
    assert parsing.told("\n") == ""


def test_a_long_text_loses_its_middle():
    assert parsing.shown("a" * 600 + "b" * 600, 11) == "aaaaa…bbbbb"


PARSERS = {
    "version": parsing.version,
    "osts": lambda text: parsing.osts(text, "", "lustre"),
    "usage": parsing.usage,
    "connections": lambda text: parsing.connections(text, "lustre"),
    "deactivated": lambda text: parsing.deactivated(text, "lustre"),
    "pool_members": parsing.pool_members,
    "file_system": parsing.file_system,
    "layout": lambda text: parsing.layout(text, "/lustre/f"),
    "hsm_state": parsing.hsm_state,
    "fid": parsing.fid,
    "mdt": parsing.mdt,
}
HOSTILE = {
    "empty": "",
    "blank": "\n \n",
    "garbage": "\x00\x01\udcff\udc80 {[(<>)]}\n%s%n: ''",
    "another answer": "Usage: lfs COMMAND\n",
    "a number too large": "99999999\n",
    "an entity": "&a; *a &b !!python/object:os.system\n",
}


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_which_nothing_is_understood_is_an_error_that_quotes_it(parser, text):
    with pytest.raises(ValueError, match="found"):
        PARSERS[parser](HOSTILE[text])


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize(
    "unit",
    ["x", " ", "\n", "lmm_stripe_count: ", "lmm_pool: :\n", "a: (0x", "[0x1:", "lustre-OST0000-osc-", "1.", "'",
     "lustre-OST0000_UUID 1 1 1 1% [OST:", "error: \n", "\t", "osc.", "0: -OST"],
)  # fmt: skip
def test_a_megabyte_of_nonsense_takes_no_time(parser, unit):
    text = unit * (10**6 // len(unit))
    begun = time.process_time()

    with pytest.raises(ValueError, match="found"):
        PARSERS[parser](text)

    assert time.process_time() - begun < 5


@pytest.mark.parametrize("text", [PLAIN, PLAIN_YAML, COMPOSITE_2_15, COMPOSITE_2_16])
def test_a_layout_that_was_cut_off_is_an_error_or_tells_all_osts(text):
    whole = parsing.layout(text, "/lustre/f").osts

    for end in range(len(text)):
        try:
            found = parsing.layout(text[:end], "/lustre/f").osts
        except ValueError:
            continue
        assert found == whole


def test_a_list_of_osts_that_was_cut_off_names_none_that_is_not_there():
    for end in range(len(DF)):
        try:
            found = parsing.usage(DF[:end])
        except ValueError:
            continue
        assert found.items() <= parsing.usage(DF).items()
