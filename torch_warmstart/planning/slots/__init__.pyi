from .following import decide_slots as decide_slots
