from .deciding import decide_slots as decide_slots
