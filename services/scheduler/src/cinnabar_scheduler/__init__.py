"""cinnabar_scheduler"""
