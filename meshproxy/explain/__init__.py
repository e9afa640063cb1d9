"""Why a request goes where it goes: the trail of one request, with the live state.  Nothing is sent or changed."""
