"""What is the best decision? Arrays in, plan out; nothing else is known here."""
