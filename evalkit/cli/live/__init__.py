"""Long runs watched: on a terminal (`view`), in log files (`plain`), by machines (`json_lines`)."""
