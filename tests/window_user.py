"""The user of an example that has a window: does to it what the lines of standard input say.

    python tests/window_user.py examples/qt_app.py

"close" closes the window, "picture PATH" saves a picture of it. Each is done by the thread and loop
of the window, as a click would be.
"""

from __future__ import annotations

import importlib
import queue
import runpy
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

_LOOK_INTERVAL = 20  # milliseconds between two looks for a line

_lines: queue.SimpleQueue[list[str]] = queue.SimpleQueue()


def _read() -> None:
    for line in sys.stdin:
        _lines.put(line.split())


def _do(close: Callable[[], object], picture: Callable[[str], object]) -> None:
    if not _lines.empty():
        command, *arguments = _lines.get()
        if command == "close":
            close()
        else:
            picture(*arguments)


def _use_tkinter() -> None:
    import tkinter

    mainloop = tkinter.Misc.mainloop

    def run(root: Any, n: int = 0) -> None:
        def close() -> None:
            root.tk.eval(root.protocol("WM_DELETE_WINDOW"))

        def picture(path: str) -> None:
            root.update()
            window = str(root.winfo_id())
            # -strip leaves the time out, so that an unchanged window makes an unchanged file.
            subprocess.run(["import", "-window", window, "-strip", path], check=True)

        def look() -> None:
            root.after(_LOOK_INTERVAL, look)
            _do(close, picture)

        look()
        mainloop(root, n)

    tkinter.Misc.mainloop = run  # type: ignore[method-assign, assignment]


def _use_qt(binding: str) -> None:
    core = importlib.import_module(f"{binding}.QtCore")
    widgets = importlib.import_module(f"{binding}.QtWidgets")
    execute: Callable[[], int] = widgets.QApplication.exec

    def run(application: Any) -> int:
        (window,) = application.topLevelWidgets()
        timer = core.QTimer()
        timer.timeout.connect(lambda: _do(window.close, lambda path: window.grab().save(path)))
        timer.start(_LOOK_INTERVAL)
        return execute()

    widgets.QApplication.exec = run


def _use_pygame() -> None:
    import pygame

    flip = pygame.display.flip

    def close() -> None:
        pygame.event.post(pygame.event.Event(pygame.QUIT))

    def picture(path: str) -> None:
        pygame.image.save(pygame.display.get_surface(), path)

    def run() -> None:
        flip()
        _do(close, picture)

    pygame.display.flip = run


if __name__ == "__main__":
    example = sys.argv[1]
    threading.Thread(target=_read, daemon=True).start()
    binding = "PyQt6" if "from PyQt6" in Path(example).read_text() else "PySide6"
    use = {
        "tkinter_app": _use_tkinter,
        "window": _use_tkinter,
        "qt_app": lambda: _use_qt(binding),
        "pygame_app": _use_pygame,
    }
    use[Path(example).stem]()
    sys.path.insert(0, str(Path(example).parent))  # as Python does for a program
    runpy.run_path(example, run_name="__main__")
