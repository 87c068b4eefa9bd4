"""Durations as people read them."""


def duration(seconds: float) -> str:
    """A duration as people read it: `42 s`, `3:07`, `1:02:09`, `2 d 3:00:00`."""
    whole = round(max(seconds, 0.0))
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour}:{minute:02d}:{second:02d}"
    if hours:
        return f"{hours}:{minute:02d}:{second:02d}"
    return f"{minutes}:{second:02d}" if minutes else f"{second} s"
