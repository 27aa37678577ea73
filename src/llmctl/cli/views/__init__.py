"""What people read. Views turn values into text and decide nothing."""
