"""Progress lines and the results table."""

import io

from rich.console import Console

from vsml.runs.progress import Progress, markdown_table, print_results


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def lines_of(updates, **options):
    stream, clock = io.StringIO(), Clock()
    with Progress(stream=stream, clock=clock, **options) as progress:
        for now, step in updates:
            clock.now = now
            progress.update(step, loss=2.0, accuracy=0.125)
    return stream.getvalue().splitlines()


def test_plain_lines_come_at_intervals_and_at_the_end():
    lines = lines_of([(1, 1), (2, 2), (12, 12), (13, 13)], total=100, interval_s=10.0)
    assert [line.split(" | ")[0] for line in lines] == ["step 1/100", "step 12/100", "step 13/100"]


def test_a_line_has_loss_accuracy_rate_and_time_left():
    (line,) = lines_of([(10, 20)], total=3620)
    assert line == "step 20/3620 | loss 2 | accuracy 0.125 | 2 steps/s | 0:30:00 left"


def test_the_rate_of_a_resumed_run_leaves_out_what_was_done_before():
    (line,) = lines_of([(10, 1010)], total=1020, start=1000)
    assert "1 steps/s | 0:00:10 left" in line


def test_a_first_update_at_the_start_has_no_rate():
    assert lines_of([(0, 0)], total=10) == ["step 0/10 | loss 2 | accuracy 0.125"]


def test_other_ranks_are_silent():
    assert lines_of([(1, 1), (20, 2)], total=2, rank=1) == []
    assert lines_of([(1, 1), (20, 2)], total=2, rank=1, terminal=True) == []


def test_on_a_terminal_there_is_a_bar_with_the_same_text():
    stream, clock = io.StringIO(), Clock()
    with Progress(4, stream=stream, clock=clock, terminal=True) as progress:
        clock.now = 2.0
        progress.update(4, loss=1.5)
        progress.note("saved")
    assert "saved" in stream.getvalue() and "━" in stream.getvalue()
    assert "step 4/4 | loss 1.5 | 2 steps/s" in stream.getvalue()


def test_the_results_table_shows_what_there_is():
    stream = io.StringIO()
    row = {
        "learner": "evolved",
        "dataset": "data/[red].npz",
        "recent_share": 0.2,
        "accuracy_at_10": 0.25,
        "accuracy_at_1000": None,
        "accuracy_last": 0.8124,
    }
    print_results([row, row | {"accuracy_at_10": None}], stream)
    text = stream.getvalue()
    assert "evolved" in text and "data/[red].npz" in text
    assert "0.250" in text and "0.812" in text
    assert text.count(" - ") == 1 and "1,000" not in text  # a column with nothing in it is left out
    assert max(map(len, text.splitlines())) <= Console(file=stream).width


def test_the_markdown_table_has_intervals_and_keeps_data_sets_together():
    def row(learner, dataset, **more):
        intervals = {"accuracy_at_10": None, "accuracy_last": 0.0125}
        values = {"accuracy_at_10": 0.25, "accuracy_last": 0.8}
        named = {"learner": learner, "dataset": dataset, "recent_share": 0.2}
        return named | {"interval_95": intervals, "tried": {}} | values | more

    tried = {"sgd.optimizer": "adam", "sgd.learning_rate": 0.1}
    rows = [row("a", "mnist"), row("a", "digits"), row("b", "mnist", tried=tried)]
    small, full = markdown_table(rows).split("In full:\n\n")
    head, _, *lines = full.splitlines()
    assert head == "| data set | learner | at 10 | last | settings tried |"
    assert lines[:3] == [
        "| mnist | a | 0.250 | 0.800 ± 0.013 |  |",
        "| mnist | b | 0.250 | 0.800 ± 0.013 | optimizer adam, learning_rate 0.1 |",
        "| digits | a | 0.250 | 0.800 ± 0.013 |  |",
    ]
    assert "on the last 20 % of the examples up to there" in lines[-1]
    assert small.splitlines()[:4] == [
        "| learner | mnist | digits |",
        "|---|---|---|",
        "| a | 80.0 ± 1.2 | 80.0 ± 1.2 |",
        "| b | 80.0 ± 1.2 | - |",
    ]
    assert "| learner |" not in markdown_table(rows[:1])[:20], "one learner needs no table of its own"


def test_tables_say_when_the_accuracy_is_that_on_one_example():
    row = {"learner": "a", "dataset": "digits", "recent_share": 0, "tried": {}, "accuracy_at_10": 0.5}
    text = markdown_table([row | {"interval_95": {}, "accuracy_last": 1.0}])
    assert "| example 10 | last |" in text and "right answers on that example alone" in text
