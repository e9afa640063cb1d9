-- wrk: requests, and one line of JSON at the end.  Arguments: authority, then the file of paths ("" for the URL's own), then
-- the bytes of each request's body (0: GETs, else POSTs).
-- Varied requests differ in path and query (from the file, in turn), trace id and session, so that no whole block of header
-- fields is seen twice; the file holds more paths than any proxy's cache has room for.

local paths, at = {}, os.time() % 1000000 * 100000 -- no run repeats another's ids

function init(arguments)
  -- By hand and not by wrk.format: that puts header fields in any order.
  local size = tonumber(arguments[3] or "0")
  local method, body, length = "GET ", "", ""
  if size > 0 then
    method, body, length = "POST ", string.rep("0123456789abcdef", size / 16), "Content-Length: " .. size .. "\r\n"
  end
  local head = " HTTP/1.1\r\nHost: " .. arguments[1] .. "\r\nUser-Agent: bench\r\nAccept: */*\r\nAccept-Language: en\r\n" .. length
  if arguments[2] and arguments[2] ~= "" then
    for line in io.lines(arguments[2]) do paths[#paths + 1] = line end
    local count = #paths
    function request()
      at = at + 1
      local ids = string.format("X-Trace: %016x\r\nCookie: session=%d\r\n\r\n", at * 7919, at)
      return method .. paths[at % count + 1] .. head .. ids .. body
    end
  else
    local whole = method .. wrk.path .. head .. "X-Trace: 0123456789abcdef\r\nCookie: session=1\r\n\r\n" .. body
    function request() return whole end
  end
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\nRESULT {"requests": %d, "us": %d, "errors": %d, "status": %d, "p50": %d, "p90": %d, "p99": %d, "p999": %d}\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.timeout, e.status,
    latency:percentile(50), latency:percentile(90), latency:percentile(99), latency:percentile(99.9)))
end
