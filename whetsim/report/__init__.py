"""What people look at: tables for the terminal, pictures of margins and spikes."""
