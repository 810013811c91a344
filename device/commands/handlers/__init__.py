"""What each command does, one module per noun. None decides whether it may run, none journals."""
