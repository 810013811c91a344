"""Commands: whether to carry one out (`admit`), carrying it out once (`serve`), each kind (`handlers`)."""
