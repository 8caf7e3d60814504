"""What wakes agents at their times: the loop that takes due schedules, and the messages that it sends."""
