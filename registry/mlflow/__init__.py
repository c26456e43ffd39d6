"""Read models and artifacts from MLflow. No other folder imports MLflow."""
