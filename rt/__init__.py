"""What runs on the robot PC: view, distance, controller, loop. Imports nothing from sim or train."""
