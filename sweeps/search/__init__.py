"""Search over mixtures: spaces, designs, surrogates, proposals."""
