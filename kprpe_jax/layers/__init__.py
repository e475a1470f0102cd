"""What several networks share: attention, MLP, batch norm, drop path, head."""
