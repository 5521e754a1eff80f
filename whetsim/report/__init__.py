"""What people look at: facts about networks and runs, and tables of them."""
