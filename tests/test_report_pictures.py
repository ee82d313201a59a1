import io
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace

import pytest
from helpers.tasks import made_tasks
from rich.console import Console

from harness.arc.encode import rows
from harness.arc.task import Pair, Task
from harness.errors import UserError
from harness.report import pictures

SVG = "{http://www.w3.org/2000/svg}"


def _grid(high, wide, first=0):
    return tuple(tuple((first + x + y) % 10 for x in range(wide)) for y in range(high))


def _spoilt(grid):
    """The grid with another colour in its first cell."""
    return (((grid[0][0] + 1) % 10, *grid[0][1:]), *grid[1:])


def _task(name="t", tests=((2, 3),)):
    return Task(name, (Pair(_grid(2, 3), _grid(3, 2)),), tuple(_grid(*size) for size in tests))


def _texts(attempts):
    """As a row of the record has them."""
    return {name: tuple(tuple(map(rows, tried)) for tried in each) for name, each in attempts.items()}


def _drawn(folder, task, attempts, solutions, title="arm n-1"):
    [path] = pictures.write_pictures(folder, [task], _texts(attempts), solutions, title, 1)
    return ET.fromstring(path.read_text(encoding="utf-8"))


def _grids(root):
    """The grids in the picture, read back from the places and colours of their cells."""
    grids = []
    for group in root.iter(f"{SVG}g"):
        if group.get("class") == "grid":
            cells = [rect for rect in group.iter(f"{SVG}rect") if rect.get("class") != "frame"]
            lines = {}
            for rect in sorted(cells, key=lambda rect: (int(rect.get("y")), int(rect.get("x")))):
                lines.setdefault(rect.get("y"), {})[rect.get("x")] = pictures.COLOURS.index(rect.get("fill"))
            assert sum(map(len, lines.values())) == len(cells)  # none on top of another
            grids.append(tuple(tuple(row.values()) for row in lines.values()))
    return grids


def _words(root):
    return [text.text for text in root.iter(f"{SVG}text")]


def _shown(tasks, attempts, solutions, most=9, width=80, **options):
    out = io.StringIO()
    pictures.show_grids(
        tasks, _texts(attempts), solutions, Console(file=out, width=width, highlight=False, **options), most
    )
    return out.getvalue()


def test_every_grid_is_drawn_cell_by_cell_in_its_colours(tmp_path):
    task, truth = _task(), _grid(4, 4, 3)
    wrong = _spoilt(truth)
    root = _drawn(tmp_path / "made" / "here", task, {"t": [(wrong, truth)]}, {"t": (truth,)})
    pair = task.demonstrations[0]
    assert _grids(root) == [pair.input, pair.output, task.test_inputs[0], wrong, truth, truth]
    fills = Counter(rect.get("fill") for rect in root.iter(f"{SVG}rect"))
    assert sum(fills[colour] for colour in pictures.COLOURS) == 6 + 6 + 6 + 3 * 16
    assert len(list(root.iter(f"{SVG}circle"))) == 1  # the one wrong cell
    words = _words(root)
    for text in ("t: solved", "arm n-1", "attempt 1: wrong", "attempt 2: right", "truth", "Dots mark wrong cells."):
        assert text in words


def test_arcs_ten_colours():
    assert len(set(pictures.COLOURS)) == 10
    assert pictures.COLOURS[0] == "#000000" and pictures.COLOURS[9] == "#870C25"


def test_a_hostile_id_is_a_safe_file_name_and_words_in_the_picture(tmp_path):
    names = ["../a b<c>&\x1b[2J", "../a b<c>& [2J", "A", "a", "con fig", "", "x" * 300, "\udcff"]
    paths = pictures.write_pictures(tmp_path, [_task(name) for name in names], {}, {}, 'a & "b" <i>', len(names))
    assert sorted(paths) == sorted(tmp_path.iterdir())  # nothing elsewhere, nothing left over
    assert len({path.name.lower() for path in paths}) == len(names)
    assert paths[3].name == "a.svg"
    roots = [ET.fromstring(path.read_text(encoding="utf-8")) for path in paths]
    assert "../a b<c>&\\x1b[2J: no answer" in _words(roots[0])
    assert 'a & "b" <i>' in _words(roots[0])
    assert max(map(len, _words(roots[6]))) < 80  # wrapped


def test_the_largest_grids_stay_inside_the_picture_and_apart(tmp_path):
    big = _grid(30, 30)
    task = Task("big", (Pair(big, big),) * 3, (big,))
    root = _drawn(tmp_path, task, {"big": [(_spoilt(big), _grid(30, 29))]}, {"big": (big,)})
    assert [len(grid) * len(grid[0]) for grid in _grids(root)] == [900] * 8 + [870, 900]
    _, _, width, height = map(float, root.get("viewBox").split())
    assert width <= 1000
    [body] = [g for g in root.iter(f"{SVG}g") if g.get("class") != "grid"]
    top = float(body.get("transform").split()[1].rstrip(")"))
    boxes = []
    for group in body.iter(f"{SVG}g"):
        if group.get("class") == "grid":
            x, y = map(float, group.get("transform").removeprefix("translate(").rstrip(")").split())
            frame = next(rect for rect in group if rect.get("class") == "frame")
            boxes.append((x, y + top, x + float(frame.get("width")), y + top + float(frame.get("height"))))
    assert all(right <= width and low <= height for _, _, right, low in boxes)
    for i, (left, up, right, low) in enumerate(boxes):
        assert all(right < a or c < left or low < b or d < up for a, b, c, d in boxes[:i])


def test_without_attempts_or_truth_the_picture_says_so(tmp_path):
    task, truth = _task(), _grid(2, 2)
    root = _drawn(tmp_path, task, {}, {"t": (truth,)})
    assert {"t: no answer", "no answer", "truth"} <= set(_words(root))
    assert _grids(root)[-1] == truth and len(_grids(root)) == 4
    root = _drawn(tmp_path, task, {"t": [(truth,)]}, {})
    assert {"t: truth unknown", "attempt 1", "truth unknown"} <= set(_words(root))
    assert not list(root.iter(f"{SVG}circle"))


def test_each_test_input_has_its_row(tmp_path):
    task, truths = _task(tests=((1, 2), (2, 1), (2, 2))), (_grid(1, 1), _grid(2, 2), _grid(3, 3))
    attempts = {"t": [(truths[0],), (_grid(1, 2),)]}  # the third was not asked
    root = _drawn(tmp_path, task, attempts, {"t": truths})
    first, second, third = task.test_inputs
    assert _grids(root)[2:] == [first, truths[0], truths[0], second, _grid(1, 2), truths[1], third, truths[2]]
    words = _words(root)
    assert words.index("attempt 1: right") < words.index("attempt 1: wrong shape") < words.index("no answer")
    assert "t: wrong (1 of 3 right)" in words
    out = _shown([task], attempts, {"t": truths})
    assert "t: wrong (1 of 3 right)" in out and "test input 3" in out
    attempts = {"t": [(truth,) for truth in truths]}
    assert "t: solved" in _words(_drawn(tmp_path, task, attempts, {"t": truths}))


def test_more_attempts_than_test_inputs_are_refused(tmp_path):
    with pytest.raises(ValueError, match="attempts at 2 test inputs, of which there are 1"):
        pictures.write_pictures(tmp_path, [_task()], {"t": [(), ()]}, {}, "", 1)


def test_only_so_many_are_drawn_and_printed(tmp_path):
    tasks, solutions = made_tasks(3)
    assert [path.name for path in pictures.write_pictures(tmp_path, tasks, {}, solutions, "", 2)] == [
        "t0.svg",
        "t1.svg",
    ]
    assert pictures.write_pictures(tmp_path, tasks, {}, solutions, "", 0) == []
    out = _shown(tasks, {}, solutions, most=2)
    assert "t1: no answer" in out and "t2" not in out


def test_what_cannot_be_written_is_a_user_error_and_leaves_the_old_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="cannot be written"):
        pictures.write_pictures(tmp_path / "file", [_task()], {}, {}, "", 1)
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "t.svg").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        pictures.write_pictures(tmp_path, [_task()], {}, {}, "", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "t.svg"]


def test_the_terminal_shows_input_attempt_and_truth_beside_each_other():
    task, truth = _task(), ((5, 6), (7, 8))
    out = _shown([task], {"t": [(truth, _grid(2, 2))]}, {"t": (truth,)})
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines == ["", "t: solved", "test input attempt 1: right truth", "0 1 2 5 6 5 6", "1 2 3 7 8 7 8"]
    assert "\x1b" not in out


def test_the_second_attempt_can_solve_it():
    truth = _grid(2, 2)
    out = _shown([_task()], {"t": [(_spoilt(truth), truth)]}, {"t": (truth,)})
    assert "t: solved" in out and "attempt 1: wrong (2: right)" in out


@pytest.mark.parametrize("side", [1, 9, 13, 14, 30])
@pytest.mark.parametrize("width", [80, 40, 20])
def test_no_line_is_wider_than_the_terminal_and_no_cell_is_lost(side, width):
    grid = _grid(side, side)
    task = replace(_task("[bold]a name/with <all> and words " * 4), test_inputs=(grid,))
    out = _shown([task], {task.id: [(_spoilt(grid),)]}, {task.id: (grid,)}, width=width)
    assert max(map(len, out.splitlines())) <= width
    assert "attempt 1: wrong" in out and "[bold]" in out
    body = out[out.index("test input") :]
    if side > width:
        assert body.count(f"{side} x {side} cells") == 3
    else:
        for label in ("test input", "attempt 1: wrong", "truth"):
            body = body.replace(label, "")
        assert sum(map(str.isdigit, body)) == 3 * side * side


def test_colours_are_backgrounds_and_go_where_they_are_unwanted():
    task, truth = _task(tests=((1, 1),)), ((4,),)
    pictured = ([task], {"t": [(((2,),),)]}, {"t": (truth,)})
    out = _shown(*pictured, force_terminal=True, color_system="truecolor")
    assert "48;2;255;220;0" in out and "48;2;255;65;54" in out  # yellow and red
    assert "\x1b[1;4;" in out  # the wrong cell, bold and underlined
    plain = _shown(*pictured, force_terminal=True, color_system="truecolor", no_color=True)
    assert "48;2;" not in plain and "attempt 1: wrong" in plain


def test_no_answer_and_no_truth_are_words_in_the_terminal():
    out = " ".join(_shown([_task(tests=((1, 1),))], {}, {}).split())
    assert out == "t: no answer test input no answer truth unknown 0"
