"""The one audio reader: any file that libsndfile or PyAV reads, as 16 kHz mono float32."""
